//! Which folders lie on a file system that other machines see, too.
//!
//! Must not know: what is done about it.

use std::path::Path;

/// File systems of several machines, by the magic number of `statfs(2)` and the name people know.
/// Source: `linux/magic.h`, and the file systems' own documentation where they are not in it.
const SHARED: [(u32, &str); 11] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB2"),
    (0xff53_4d42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x0bd0_0bd0, "Lustre"),
    (0x00c3_6400, "Ceph"),
    (0x4750_4653, "GPFS"),
    (0x5346_414f, "AFS"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
];

/// The kind of the file system that holds `folder`, if several machines may see it.
#[cfg(target_os = "linux")]
pub(crate) fn shared(folder: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(folder).ok()?;
    // Signed, and as wide as a word: the magic numbers are 32 bits.
    name(found.f_type as u32)
}

/// Elsewhere nobody says; an explicit choice does.
#[cfg(not(target_os = "linux"))]
pub(crate) fn shared(_folder: &Path) -> Option<&'static str> {
    None
}

fn name(magic: u32) -> Option<&'static str> {
    let found = SHARED.iter().find(|(known, _)| *known == magic);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_several_machines_are_known_by_number() {
        assert_eq!(name(0x6969), Some("NFS"));
        assert_eq!(name(0xff53_4d42_u32), Some("CIFS"));
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs: one machine's own.
        for local in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
        ] {
            assert_eq!(name(local), None, "{local:x}");
        }
        let here = tempfile::tempdir().unwrap();
        assert_eq!(shared(&here.path().join("not there")), None);
    }
}
