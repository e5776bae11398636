//! Writes. `lines N`: N numbered lines on standard output, then `done` on standard error, then waits.
//! `long N`: one line of N bytes. `raw`: bytes that are neither text nor harmless to a terminal. `half`: a line
//! without its end, then it ends. `numbers FOLDER N`: N lines `PID n`, the last one that is out
//! noted in FOLDER/PID.

use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut out = io::stdout().lock();
    match words[..] {
        ["lines", count] => {
            for n in 1..=count.parse::<u64>().expect("how many") {
                writeln!(out, "line {n}")?;
            }
        }
        ["long", length] => {
            let length = length.parse().expect("how many bytes");
            out.write_all(&vec![b'x'; length])?;
            out.write_all(b"\n")?;
        }
        ["raw"] => out.write_all(b"bytes \x1b[2J\x00\xff\xfe end\n")?,
        ["half"] => {
            out.write_all(b"a line without its end")?;
            return out.flush();
        }
        ["numbers", folder, count] => {
            let this = std::process::id();
            let noted = File::create(Path::new(folder).join(this.to_string()))?;
            for n in 1..=count.parse::<u64>().expect("how many") {
                writeln!(out, "{this} {n}")?;
                out.flush()?;
                noted.write_all_at(&n.to_le_bytes(), 0)?;
            }
        }
        _ => panic!("usage: talker lines N | long N | raw | half | numbers FOLDER N"),
    }
    out.flush()?;
    eprintln!("done");
    loop {
        thread::park();
    }
}
