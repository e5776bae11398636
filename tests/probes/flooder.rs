//! Floods its standard output: `flooder KIND BYTES`, then a last line, then it ends well.

use std::env;
use std::io::{self, Write as _};

use watchdog_tests::proof::flood::{Kind, last_line};

/// Written at once: a pipe's worth.
const BLOCK: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [kind, bytes] = &args[..] else { panic!("usage: flooder KIND BYTES") };
    let kind = Kind::from_word(kind).expect("a kind of flood");
    let bytes: usize = bytes.parse().expect("how many bytes");
    let block = block(kind);
    let mut out = io::stdout().lock();
    let mut written = 0;
    while written < bytes {
        out.write_all(&block)?;
        written += block.len();
    }
    writeln!(out, "\n{}", last_line(kind))?;
    out.flush()
}

fn block(kind: Kind) -> Vec<u8> {
    let repeated = |piece: &[u8]| piece.iter().copied().cycle().take(BLOCK).collect();
    match kind {
        Kind::Long => repeated(b"a line without end "),
        Kind::Short => repeated(b"a line of little\n"),
        Kind::Binary => {
            let mut random = fastrand::Rng::with_seed(1);
            let mut block = vec![0; BLOCK];
            random.fill(&mut block);
            block
        }
        Kind::Escapes => repeated(b"\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07\r\x08\n"),
    }
}
