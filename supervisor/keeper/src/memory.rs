//! The memory of this process.
#![expect(
    unsafe_code,
    reason = "malloc_trim has no safe wrapper, and what madvise does to a mapping is the caller's to know"
)]

use std::ops::Range;

/// Gives back what a burst of work leaves and nobody uses: pages that the allocator holds, also those between what is used,
/// and the pages of the program itself and its libraries. Those are the file's, and what runs next finds them in the
/// page cache, for a microsecond each time; until then they count for nobody, and are the first to go where memory is
/// short. Takes some milliseconds for ten megabytes. Other allocators than glibc's give back by themselves, or not at all.
pub fn give_back_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and the allocator's own locks; what is allocated stays where it is.
    unsafe {
        libc::malloc_trim(0);
    }
    let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for pages in of_files_alone(&mappings) {
        // SAFETY: of a mapping that nobody can write to, and that has no page which is not the file's, each is read from the
        // file again when it is next wanted, and is the same. Mappings of another thread, made or gone since the text was read,
        // are not among them: nothing maps a file to read it and lets it go again. What it answers says nothing more: memory
        // that is locked stays.
        unsafe {
            libc::madvise(pages.start as *mut libc::c_void, pages.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The mappings of which each page is its file's: private, not to be written to, none of its pages ever was. What the loader
/// wrote to before it was protected is not among them.
fn of_files_alone(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["Anonymous:", kib, _] => found.extend(mapping.take().filter(|_| kib == "0")),
            [range, access, _, _, _, path, ..] if path.starts_with('/') => {
                let is_whole = access.as_bytes().get(1) == Some(&b'-') && access.ends_with('p');
                mapping = pages(range).filter(|_| is_whole);
            }
            [_, _, _, _, _, ..] => mapping = None,
            _ => {}
        }
    }
    found
}

/// As `start-end` in hexadecimal digits.
fn pages(range: &str) -> Option<Range<usize>> {
    let (start, end) = range.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_files_alone_is_let_go() {
        let mapping = |header: &str, anonymous: u32| {
            format!(
                "{header}\nSize:  4 kB\nPss_Anon:  9 kB\nAnonymous:  {anonymous} kB\nVmFlags: rd mr mw me\n"
            )
        };
        let smaps: String = [
            ("1000-2000 r--p 00000000 fe:00 9      /usr/bin/a b", 0),
            ("2000-4000 r-xp 00001000 fe:00 9      /usr/bin/a b", 0),
            ("4000-5000 r--p 00003000 fe:00 9      /usr/bin/a b", 4),
            ("5000-6000 rw-p 00004000 fe:00 9      /usr/bin/a b", 0),
            ("6000-7000 r--s 00000000 00:01 9      /memfd:page (deleted)", 0),
            ("7000-8000 r--p 00000000 00:00 0      [vvar]", 0),
            ("8000-9000 ---p 00000000 00:00 0 ", 0),
            ("9000-b000 r-xp 00000000 fe:00 7      /lib/c.so", 0),
        ]
        .into_iter()
        .map(|(header, anonymous)| mapping(header, anonymous))
        .collect();
        assert_eq!(of_files_alone(&smaps), [0x1000..0x2000, 0x2000..0x4000, 0x9000..0xb000]);
        assert_eq!(of_files_alone(""), []);
    }

    /// A constant as long as many pages: read before and after.
    static CONSTANT: [u8; 1 << 20] = {
        let mut bytes = [0; 1 << 20];
        let mut at = 0;
        while at < bytes.len() {
            bytes[at] = (at % 251) as u8;
            at += 4096;
        }
        bytes
    };

    #[test]
    fn the_program_goes_on_and_what_it_let_go_is_no_longer_in_its_memory() {
        let sum = || std::hint::black_box(&CONSTANT).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let address = CONSTANT.as_ptr().addr();
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let of = smaps.lines().skip_while(|line| {
                let range = line.split(' ').next().and_then(pages);
                !range.is_some_and(|pages| pages.contains(&address))
            });
            let line = of.clone().find(|line| line.starts_with("Rss:")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = (sum(), resident());
        assert!(before.1 >= 1024);
        give_back_unused();
        // Other tests of this process take what they need of the same mapping meanwhile.
        let after = resident();
        assert!(after < before.1 - 512, "{after} of {} KiB", before.1);
        assert_eq!(sum(), before.0);
    }
}
