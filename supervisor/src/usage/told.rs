//! What the kernel's files say, as numbers. Lines and words that are not known are passed over: newer kernels add some.

use watchdog_protocol::usage::Stall;

/// The number behind a word: `usage_usec 1200`, `VmSwap:     12 kB`.
pub(super) fn keyed(text: &[u8], key: &str) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(key.as_bytes())?;
        rest.first().is_some_and(u8::is_ascii_whitespace).then_some(rest)
    })?;
    number(line)
}

/// The first word, if it is a number.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let word = text.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// All words are numbers, or none is.
pub(super) fn numbers(text: &[u8]) -> Option<Vec<u64>> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

/// `some avg10=0.00 … total=12` and `full … total=3`. Without the second line, as older kernels have it of processors,
/// all never waited.
pub(super) fn stall(text: &[u8]) -> Option<Stall> {
    let total = |kind: &str| {
        let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(kind.as_bytes()))?;
        let word = line.split(u8::is_ascii_whitespace).find_map(|word| word.strip_prefix(b"total="))?;
        std::str::from_utf8(word).ok()?.parse().ok()
    };
    Some(Stall { some_us: total("some ")?, full_us: total("full ").unwrap_or(0) })
}

/// Bytes read and written, over all disks: `8:0 rbytes=4096 wbytes=0 rios=1 …` a line.
pub(super) fn of_disks(text: &[u8]) -> (u64, u64) {
    let sum = |key: &str| {
        let words = text.split(u8::is_ascii_whitespace).filter_map(|word| word.strip_prefix(key.as_bytes()));
        words.filter_map(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// A word stands in a list of words.
pub(super) fn lists(text: &[u8], word: &str) -> bool {
    text.split(u8::is_ascii_whitespace).any(|found| found == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_behind_its_word_and_nowhere_else() {
        let text =
            b"usage_usec 1200\nuser_usec 900\nVmSwap:\t     12 kB\nodd\nword x\nmax 18446744073709551616\n";
        assert_eq!(keyed(text, "usage_usec"), Some(1200));
        assert_eq!(keyed(text, "VmSwap:"), Some(12));
        for none in ["usage", "usec", "odd", "word", "max", "absent", ""] {
            assert_eq!(keyed(text, none), None, "{none}");
        }
        assert_eq!(keyed(b"", "a"), None);
        assert_eq!(keyed(b"a 7", "a"), Some(7));
        assert_eq!(keyed(b"a \xff", "a"), None);
    }

    #[test]
    fn pressure_is_two_totals_and_the_second_may_be_missing() {
        let both =
            b"some avg10=1.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n";
        assert_eq!(stall(both), Some(Stall { some_us: 9, full_us: 4 }));
        assert_eq!(stall(b"some avg10=0.00 total=9\n"), Some(Stall { some_us: 9, full_us: 0 }));
        for odd in [&b""[..], b"some", b"some total=", b"full total=4", b"some total=-1", b"some total=9x"] {
            assert_eq!(stall(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn disks_are_added_up_and_lists_have_whole_words() {
        let text =
            b"8:0 rbytes=4096 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=4 wbytes=x wios=2\n253:0\n";
        assert_eq!(of_disks(text), (4100, 1));
        assert_eq!(of_disks(b""), (0, 0));
        assert!(lists(b"cpu io memory\n", "io") && !lists(b"cpuset\n", "cpu"));
        assert_eq!(numbers(b"12 7 9\n"), Some(vec![12, 7, 9]));
        assert_eq!(numbers(b"12 a"), None);
        assert_eq!((number(b" 77\n"), number(b"max\n"), number(b"")), (Some(77), None, None));
    }
}
