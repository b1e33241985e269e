//! A blake3 digest: 32 bytes, written as 64 lowercase hex digits.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The blake3 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text that is not 64 lowercase hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest (64 lowercase hex digits)")]
pub struct BadDigest(String);

impl Digest {
    /// Digits of [`Digest::hex`].
    pub(crate) const HEX: usize = 64;

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub(crate) fn from_hash(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }

    /// What a hasher has seen.
    pub(crate) fn from_hasher(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hex digits.
    pub fn hex(&self) -> String {
        self.digits().to_owned()
    }

    /// [`Digest::hex`] without a text of its own on the heap.
    pub(crate) fn digits(&self) -> impl Deref<Target = str> + fmt::Display + use<> {
        blake3::Hash::from_bytes(self.0).to_hex()
    }

    /// The first 12 hex digits: what people read.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// The first two hex digits: the folder that a store keeps it in.
    pub(crate) fn shard(&self) -> String {
        format!("{:02x}", self.0[0])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digits())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.chars().take(80).collect());
        if text.len() != 64 {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        let mut all = 0;
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = (VALUES[pair[0] as usize], VALUES[pair[1] as usize]);
            all |= high | low;
            *byte = (high << 4) | (low & 15);
        }
        if all > 15 {
            Err(bad())
        } else {
            Ok(Self(bytes))
        }
    }
}

/// What each byte is worth as a lower-case hex digit; 255 for those that are none. A run that does
/// nothing reads seven digests a stage.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.digits())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl serde::de::Visitor<'_> for Hex {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hex digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_that_of_the_blake3_specification() {
        let nothing = Digest::of(b"");
        assert_eq!(
            nothing.hex(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(nothing.short(), "af1349b9f5f9");
        for of in 0..=255 {
            let digest = Digest::of(&[of]);
            assert_eq!(digest.hex().parse::<Digest>(), Ok(digest));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "af13",
            &"g".repeat(64),
            &"A".repeat(64),
            &"é".repeat(32),
            &format!("{}:", "0".repeat(63)),
            &format!("/{}", "0".repeat(63)),
            &"0".repeat(65),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
