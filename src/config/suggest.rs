//! "did you mean": the nearest known name.

/// The known name nearest to `name`, if it is near enough to be a slip.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|word| {
            let distance = strsim::damerau_levenshtein(&word.to_lowercase(), &lower);
            (distance, word)
        })
        .filter(|(distance, word)| {
            *distance <= allowed || (lower.len() >= 3 && word.to_lowercase().starts_with(&lower))
        })
        .min()
        .map(|(_, word)| word)
}

/// A mend for an unknown name: the nearest one, else all of them.
pub(crate) fn mend<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, what: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("there are no {what} here"),
        None => format!("known {what}: {}", list(&known)),
    }
}

/// At most twelve names, then a count.
pub(crate) fn list(names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().copied().take(12).collect();
    let more = names.len().saturating_sub(shown.len());
    let shown = shown.join(", ");
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}

#[cfg(test)]
mod tests {
    use super::{mend, nearest};

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_does_not() {
        assert_eq!(nearest("trian", ["eval", "train"]), Some("train"));
        assert_eq!(nearest("Inputs", ["inputs", "outputs"]), Some("inputs"));
        assert_eq!(nearest("valid", ["validate", "eval"]), Some("validate"));
        assert_eq!(nearest("banana", ["eval", "train"]), None);
        assert_eq!(nearest("x", ["env", "run"]), None);
    }

    #[test]
    fn without_a_near_word_the_known_ones_are_listed() {
        assert_eq!(mend("zzz", ["a", "b"], "keys"), "known keys: a, b");
    }
}
