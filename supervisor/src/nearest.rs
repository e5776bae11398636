//! What a typing error was meant to be.

/// The candidate most like `text`, when one is like it at all.
pub(crate) fn nearest<'c, C: AsRef<str> + ?Sized + 'c>(
    text: &str,
    candidates: impl IntoIterator<Item = &'c C>,
) -> Option<&'c C> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(text, candidate.as_ref()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found_and_what_is_far_is_not() {
        let known = ["counter", "bumper", "logging"];
        assert_eq!(nearest("countr", known), Some("counter"));
        assert_eq!(nearest("bumber", known), Some("bumper"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest("counter", [] as [&str; 0]), None);
    }
}
