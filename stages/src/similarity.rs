//! When two texts are the same, nearly the same, or share a phrase.
//!
//! Promises: the same answer on every machine (own hash, no random state); `near_pairs`
//! is exact, not approximate. Must not know: rows, files, what is done about a match.
//!
//! Near-duplicates: Jaccard similarity of character 4-grams of the normalised text, found
//! by prefix filtering (Bayardo, Ma, Srikant: Scaling Up All Pairs Similarity Search, 2007).

use std::collections::{BTreeMap, BTreeSet};

/// Raised whenever two texts would be judged otherwise.
pub const SIMILARITY_VERSION: u32 = 1;

/// Letters of one gram.
const GRAM: usize = 4;

/// Words that a shared phrase must not rest on: function words and the everyday words of
/// an assistant. Five of them in a row say nothing about where a text came from.
const STOP: &str = "a about add after again all also am an and another any anything are as at be \
    because been before book but by calendar call can change check could date day delete did do \
    does doing dont down due done email evening event everything feels find finished first for \
    forecast from get give go going good got had has have hello help hey hi hour hours how i id if \
    ill im in into is it its just know let lets like list look make mark me meeting message minutes \
    month more morning move much my need new next night no noon not note now of off ok on one only \
    open or our out over own please pls priority put remind reminder remove rid send set she should \
    show so some something tell than thanks that the their them then there these they thing things \
    this time to today todo tomorrow tonight too task tasks up update us use want was wat we weather \
    week weekend well were what whats when where which who why will with work would year yes you \
    your monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun \
    january february march april may june july august september october november december am pm \
    afternoon half past quarter oclock high medium low two three four five six seven eight nine ten \
    eleven twelve appointment schedule block subject saying that's take must";

/// Lower-case words joined by one blank; punctuation and apostrophes are gone.
pub fn normal(text: &str) -> String {
    words(text).join(" ")
}

/// The lower-case words of a text; an apostrophe joins, everything else divides.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for letter in text.chars().flat_map(char::to_lowercase) {
        if letter.is_alphanumeric() || letter == '_' {
            word.push(letter);
        } else if !matches!(letter, '\'' | '\u{2019}') && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// FNV-1a, 64 bits: small, and the same everywhere.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The set of 4-grams of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grams(Vec<u64>);

impl Grams {
    /// The grams of the normalised text, its ends padded so that short words count.
    pub fn of(text: &str) -> Self {
        let padded: Vec<char> = format!("   {} ", normal(text)).chars().collect();
        let mut grams: Vec<u64> = padded
            .windows(GRAM)
            .map(|window| hash(window.iter().collect::<String>().as_bytes()))
            .collect();
        grams.sort_unstable();
        grams.dedup();
        Self(grams)
    }

    /// Shared grams over all grams, from 0 to 1.
    pub fn jaccard(&self, other: &Self) -> f64 {
        let (mut a, mut b, mut shared) = (0, 0, 0usize);
        while a < self.0.len() && b < other.0.len() {
            match self.0[a].cmp(&other.0[b]) {
                std::cmp::Ordering::Less => a += 1,
                std::cmp::Ordering::Greater => b += 1,
                std::cmp::Ordering::Equal => {
                    (a, b, shared) = (a + 1, b + 1, shared + 1);
                }
            }
        }
        let all = self.0.len() + other.0.len() - shared;
        if all == 0 {
            1.0
        } else {
            shared as f64 / all as f64
        }
    }
}

/// Every pair `(earlier, later, similarity)` with a similarity of at least `threshold`,
/// ordered by the later one, then the earlier one.
pub fn near_pairs(texts: &[Grams], threshold: f64) -> Vec<(usize, usize, f64)> {
    let mut frequency: BTreeMap<u64, usize> = BTreeMap::new();
    for gram in texts.iter().flat_map(|text| &text.0) {
        *frequency.entry(*gram).or_default() += 1;
    }
    let mut index: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut pairs = Vec::new();
    for (later, text) in texts.iter().enumerate() {
        let mut rare = text.0.clone();
        rare.sort_by_key(|gram| (frequency[gram], *gram));
        // Two sets this similar share a gram among their first n - ceil(t n) + 1.
        let must = (threshold * rare.len() as f64).ceil() as usize;
        rare.truncate((rare.len() + 1).saturating_sub(must.max(1)));
        let mut candidates = BTreeSet::new();
        for gram in &rare {
            let seen = index.entry(*gram).or_default();
            candidates.extend(seen.iter().copied());
            seen.push(later);
        }
        for earlier in candidates {
            let similarity = texts[earlier].jaccard(text);
            if similarity >= threshold {
                pairs.push((earlier, later, similarity));
            }
        }
    }
    pairs
}

/// Texts that must not turn up elsewhere: the eval prompts.
pub struct Guarded {
    exact: BTreeMap<String, String>,
    grams: Vec<(Grams, String)>,
    phrases: BTreeMap<Vec<String>, String>,
    stop: BTreeSet<&'static str>,
}

/// How a text gives a guarded one away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The id of the guarded text.
    pub id: String,
    /// `the same text`, `a near-duplicate`, or the shared phrase.
    pub what: String,
}

impl Guarded {
    /// Guards `(id, text)` pairs.
    pub fn new<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut guarded = Self {
            exact: BTreeMap::new(),
            grams: Vec::new(),
            phrases: BTreeMap::new(),
            stop: STOP.split_whitespace().collect(),
        };
        for (id, text) in texts {
            guarded.exact.insert(normal(text), id.to_owned());
            guarded.grams.push((Grams::of(text), id.to_owned()));
            for phrase in words(text).windows(5) {
                if guarded.tells(phrase) {
                    guarded.phrases.insert(phrase.to_vec(), id.to_owned());
                }
            }
        }
        guarded
    }

    /// Whether five words say something: at least one that is no stop word, no number
    /// and no id.
    fn tells(&self, phrase: &[String]) -> bool {
        phrase.iter().any(|word| {
            !self.stop.contains(word.as_str()) && !word.chars().any(|c| c.is_ascii_digit())
        })
    }

    /// The first leak in `text`, or `None`.
    pub fn leak(&self, text: &str, threshold: f64) -> Option<Leak> {
        let found = |id: &String, what: String| {
            Some(Leak {
                id: id.clone(),
                what,
            })
        };
        let plain = normal(text);
        if let Some(id) = self.exact.get(&plain).filter(|_| long_enough(&plain)) {
            return found(id, "the same text".to_owned());
        }
        for phrase in words(text).windows(5) {
            if let Some(id) = self.phrases.get(phrase) {
                return found(id, format!("the words `{}`", phrase.join(" ")));
            }
        }
        let grams = Grams::of(text);
        for (other, id) in &self.grams {
            if long_enough(&plain) && grams.jaccard(other) >= threshold {
                return found(id, "a near-duplicate".to_owned());
            }
        }
        None
    }
}

/// `thanks` or `hi` is in every conversation; only texts of three words can leak.
fn long_enough(plain: &str) -> bool {
    plain.split(' ').count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normal_form_forgets_case_and_marks() {
        assert_eq!(
            normal("Don\u{2019}t  FORGET: milk, task_81!"),
            "dont forget milk task_81"
        );
    }

    #[test]
    fn paraphrases_are_near_and_others_are_far() {
        let near = |a, b| Grams::of(a).jaccard(&Grams::of(b));
        assert!(
            near(
                "Remind me to call John tomorrow",
                "remind me to call john tomorrow!"
            ) > 0.99
        );
        assert!(
            near(
                "remind me to call John tomorrow please",
                "remind me to call John tomorrow"
            ) > 0.75
        );
        assert!(
            near(
                "remind me to call John tomorrow",
                "what's the weather in Oslo"
            ) < 0.1
        );
    }

    #[test]
    fn a_leak_is_the_text_a_paraphrase_or_five_telling_words() {
        let guarded = Guarded::new([
            (
                "e01",
                "please order twelve purple balloons for the school fair",
            ),
            ("e02", "thanks"),
            ("e03", "what do i have to do today"),
        ]);
        let leak = |text| guarded.leak(text, 0.8).map(|leak| (leak.id, leak.what));
        assert_eq!(
            leak("I must order twelve purple balloons for mum"),
            Some((
                "e01".to_owned(),
                "the words `order twelve purple balloons for`".to_owned()
            ))
        );
        assert_eq!(leak("thanks"), None);
        assert_eq!(leak("so what do i have to do on friday"), None);
        assert_eq!(
            leak("What do I have to do today?").unwrap().1,
            "the same text"
        );
    }

    proptest! {
        #[test]
        fn prefix_filtering_finds_exactly_the_near_pairs(
            texts in proptest::collection::vec("[ab ]{0,12}", 0..24),
            threshold in 0.3f64..1.0,
        ) {
            let grams: Vec<Grams> = texts.iter().map(|text| Grams::of(text)).collect();
            let mut slow = Vec::new();
            for later in 0..grams.len() {
                for earlier in 0..later {
                    let similarity = grams[earlier].jaccard(&grams[later]);
                    if similarity >= threshold {
                        slow.push((earlier, later, similarity));
                    }
                }
            }
            prop_assert_eq!(near_pairs(&grams, threshold), slow);
        }
    }
}
