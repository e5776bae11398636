//! The memory of this process.
#![expect(
    unsafe_code,
    reason = "malloc_trim has no safe wrapper, and what madvise does to a mapping is the caller's to know"
)]

use std::ops::Range;

/// Gives back what a burst of work leaves and nobody uses: pages that the allocator holds, also those between what is used,
/// and the pages of the program itself. Those are the file's, and what runs next finds them in the page cache, for a
/// microsecond each time; until then they count for nobody, and are the first to go where memory is short. Takes some
/// milliseconds for ten megabytes. Other allocators than glibc's give back by themselves, or not at all.
pub fn give_back_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and the allocator's own locks; what is allocated stays where it is.
    unsafe {
        libc::malloc_trim(0);
    }
    let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let code = give_back_unused as *const () as usize;
    for pages in clean_pages_of_image(&mappings, code) {
        // SAFETY: nobody can write to these, and each is its file's, which is not written to while it is executed: read again
        // when next wanted, it is the same. They are of the image of this program, which stays mapped where it is for as
        // long as the process lives, whatever other threads map and unmap. What this answers says nothing more: memory that is
        // locked stays.
        unsafe {
            libc::madvise(pages.start as *mut libc::c_void, pages.len(), libc::MADV_DONTNEED);
        }
    }
}

/// One mapping, as far as it matters here.
struct Mapping<'a> {
    pages: Range<usize>,
    path: &'a str,
    /// By writing to it, or by whoever shares it.
    is_changeable: bool,
    /// Pages of its own, in memory and swapped out: `None` where that is not told.
    own: (Option<u64>, Option<u64>),
}

/// Of the mappings of one file that lie side by side around `code`, those of which each page is the file's: not to be written
/// to, and no page of which ever was. What the loader wrote to before it was protected has pages of its own, in memory
/// or in the swap.
fn clean_pages_of_image(smaps: &str, code: usize) -> Vec<Range<usize>> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().take(3).collect();
        let kib = words.get(1).and_then(|word| word.parse().ok());
        match (words.first(), mappings.last_mut()) {
            (Some(&"Anonymous:"), Some(mapping)) => mapping.own.0 = kib,
            (Some(&"Swap:"), Some(mapping)) => mapping.own.1 = kib,
            (Some(range), _) => {
                let Some(pages) = pages(range) else { continue };
                let path = line.find('/').map_or("", |at| &line[at..]);
                let is_changeable =
                    words.get(1).is_none_or(|access| access.contains('w') || !access.ends_with('p'));
                mappings.push(Mapping { pages, path, is_changeable, own: (None, None) });
            }
            (None, _) => {}
        }
    }
    let is_side_by_side =
        |one: &Mapping<'_>, next: &Mapping<'_>| one.pages.end == next.pages.start && one.path == next.path;
    let image = mappings
        .chunk_by(is_side_by_side)
        .find(|image| image.iter().any(|mapping| mapping.pages.contains(&code)));
    let is_clean = |mapping: &&Mapping<'_>| {
        !mapping.path.is_empty() && !mapping.is_changeable && mapping.own == (Some(0), Some(0))
    };
    image.into_iter().flatten().filter(is_clean).map(|mapping| mapping.pages.clone()).collect()
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
    fn only_what_is_the_files_alone_is_let_go() {
        let mapping = |header: &str, anonymous: u32, swap: u32| {
            format!(
                "{header}\nSize:  1024 kB\nPss_Anon:  9 kB\nAnonymous:  {anonymous} kB\nSwap:  {swap} kB\nSwapPss:  7 kB\n\
                 THPeligible:  0\nVmFlags: rd mr mw me\n"
            )
        };
        let smaps: String = [
            ("0800-1000 r--p 00000000 fe:00 9      /etc/ld.so.cache", 0, 0),
            ("1000-2000 r--p 00000000 fe:00 9      /usr/bin/a b", 0, 0),
            ("2000-4000 r-xp 00001000 fe:00 9      /usr/bin/a b", 0, 0),
            ("4000-5000 r--p 00003000 fe:00 9      /usr/bin/a b", 4, 0),
            ("5000-6000 r--p 00003000 fe:00 9      /usr/bin/a b", 0, 4),
            ("6000-7000 rw-p 00004000 fe:00 9      /usr/bin/a b", 0, 0),
            ("7000-8000 r--s 00004000 fe:00 9      /usr/bin/a b", 0, 0),
            ("8000-9000 ---p 00000000 00:00 0 ", 0, 0),
            ("a000-b000 r--p 00000000 fe:00 9      /usr/bin/a b", 0, 0),
            ("b000-d000 r-xp 00000000 fe:00 7      /lib/c.so", 0, 0),
        ]
        .into_iter()
        .map(|(header, anonymous, swap)| mapping(header, anonymous, swap))
        .collect();
        assert_eq!(clean_pages_of_image(&smaps, 0x2010), [0x1000..0x2000, 0x2000..0x4000]);
        assert_eq!(clean_pages_of_image(&smaps, 0x8010), [], "no file");
        assert_eq!(clean_pages_of_image(&smaps, 0x9010), [], "nothing is there");
        let untold = smaps.replace("Swap:", "Other:");
        assert_eq!(clean_pages_of_image(&untold, 0x2010), []);
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
