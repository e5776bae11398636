//! From raw bytes to records of a log file. No I/O, no clock.

use std::fmt::Write;

/// The longest line in one record, before escaping, and the most that is looked at in one batch.
pub(super) const LONGEST: usize = 64 * 1024;

/// What unended bytes at the end of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A line: nothing of it will follow.
    Line,
    /// A piece of a line: the next record of the stream goes on.
    GoesOn,
}

/// How many of the bytes make a piece that ends between two characters.
pub(super) fn piece(raw: &[u8]) -> usize {
    let tail = raw.len().saturating_sub(3);
    // A first byte of a character whose other bytes are not all there.
    let unfinished = raw[tail..].iter().rposition(|byte| *byte >= 0xc0).map(|at| tail + at);
    match unfinished {
        Some(at)
            if at > 0 && std::str::from_utf8(&raw[at..]).is_err_and(|error| error.error_len().is_none()) =>
        {
            at
        }
        _ => raw.len(),
    }
}

/// Appends a record for each line of `raw` to `out` and gives each text to `each`. How many there were.
pub(super) fn append(
    raw: &[u8],
    stamp: &str,
    word: &str,
    end: End,
    out: &mut String,
    mut each: impl FnMut(&str),
) -> u64 {
    let mut count = 0;
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let (text, going_on) = match line.strip_suffix(b"\n") {
            Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), false),
            None => (line, end == End::GoesOn),
        };
        out.push_str(stamp);
        out.push(' ');
        out.push_str(word);
        out.push_str(if going_on { "+ " } else { " " });
        let start = out.len();
        escape(text, out);
        each(&out[start..]);
        out.push('\n');
        count += 1;
    }
    count
}

fn escape(raw: &[u8], out: &mut String) {
    if raw.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        out.push_str(std::str::from_utf8(raw).expect("printable ASCII"));
        return;
    }
    let hex = |out: &mut String, byte: u8| write!(out, "\\x{byte:02x}").expect("a string has room");
    for chunk in raw.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => out.push('\t'),
                '\0'..='\x1f' | '\x7f' => hex(out, character as u8),
                // C1 controls, which terminals obey too, and what changes the direction of text.
                '\u{80}'..='\u{9f}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => {
                    write!(out, "\\u{{{:x}}}", u32::from(character)).expect("a string has room");
                }
                _ => out.push(character),
            }
        }
        for byte in chunk.invalid() {
            hex(out, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(raw: &[u8], end: End) -> String {
        let mut out = String::new();
        append(raw, "T", "out", end, &mut out, |_| ());
        out
    }

    #[test]
    fn each_line_is_a_record_and_a_piece_is_marked() {
        assert_eq!(records(b"one\r\n\ntwo\n", End::Line), "T out one\nT out \nT out two\n");
        assert_eq!(records(b"one\ntw", End::Line), "T out one\nT out tw\n");
        assert_eq!(records(b"one\ntw", End::GoesOn), "T out one\nT out+ tw\n");
        assert_eq!(records(b"", End::Line), "");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(records(b"\x1b[31mred\t\x07\0\x7f\n", End::Line), "T out \\x1b[31mred\t\\x07\\x00\\x7f\n");
        assert_eq!(
            records("\u{9b}31m\u{202e}ab é 猫\n".as_bytes(), End::Line),
            "T out \\u{9b}31m\\u{202e}ab é 猫\n"
        );
        assert_eq!(records(b"a\xff\xc3\n", End::Line), "T out a\\xff\\xc3\n");
    }

    #[test]
    fn a_piece_ends_between_two_characters() {
        assert_eq!(piece("aé".as_bytes()), 3);
        assert_eq!(piece(&"aé".as_bytes()[..2]), 1);
        assert_eq!(piece(&"a猫".as_bytes()[..3]), 1);
        assert_eq!(piece(&"a🐕".as_bytes()[..4]), 1);
        assert_eq!(piece(b"\xff\xff"), 2);
        assert_eq!(piece(b"\xc3"), 1, "never nothing");
    }

    proptest! {
        #[test]
        fn whatever_comes_one_line_is_one_record_without_controls(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let out = records(&raw, End::GoesOn);
            prop_assert_eq!(out.lines().count(), raw.split_inclusive(|byte| *byte == b'\n').count());
            prop_assert!(!out.chars().any(|character| character.is_control() && !"\t\n".contains(character)));
        }
    }
}
