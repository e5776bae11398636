//! Text within quotes, as JSON has it; what a terminal takes for a command is escaped too.

/// Bytes that can't stand for themselves: control characters, the quote, the backslash; and 0xC2, which begins those of
/// U+0080 to U+009F and also harmless ones.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special[0x7f] = true;
    special[0xc2] = true;
    special
};

/// Appends a text between quotes.
pub(super) fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Appends a text without quotes.
pub(super) fn escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if !SPECIAL[usize::from(byte)] {
            at += 1;
            continue;
        }
        // The second byte of what 0xC2 begins is the character itself.
        let (code, length) = match byte {
            0xc2 => (bytes.get(at + 1).copied().unwrap_or(0xff), 2),
            _ => (byte, 1),
        };
        if length == 2 && code >= 0xa0 {
            at += 2;
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        match code {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', code]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                super::hex(out, &[code]);
            }
        }
        at += length;
        plain = at;
    }
    out.extend_from_slice(&bytes[plain..]);
}

/// Whether a text reads as itself between blanks.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_quoted_is_read_as_it_was(text in prop::collection::vec(any::<char>(), 0..40)) {
            let text = String::from_iter(text);
            let mut out = Vec::new();
            quoted(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            prop_assert!(!String::from_utf8(out).unwrap().chars().any(char::is_control));
        }

        #[test]
        fn every_byte_below_a_hundred_hex_is_read_as_it_was(text in "[\\x00-\\xff]{0,20}") {
            let mut out = Vec::new();
            quoted(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
