//! Lane pages through several mappings, as several processes have them.
#![expect(clippy::unwrap_used, reason = "a test that fails here should say so here")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use watchdog_protocol::MessageNumber;
use watchdog_seqpacket::{
    Marks, PageError, ReceiverPage, ReceiverPageReader, SenderPage, SenderPageReader, SenderStats, read_only,
};

fn number(number: u64) -> MessageNumber {
    MessageNumber::from_stored(number)
}

#[test]
fn a_number_is_never_reserved_twice() {
    let page = SenderPage::create().unwrap();
    let first = SenderPage::map_rw(page.as_fd()).unwrap();
    assert_eq!(first.reserve(1), MessageNumber::FIRST);
    assert_eq!(first.reserve(3), number(2));
    drop(first); // killed before it sent any of them
    let second = SenderPage::map_rw(page.as_fd()).unwrap();
    let third = SenderPage::map_rw(page.as_fd()).unwrap();
    assert_eq!(second.reserved(), number(4));
    assert_eq!(second.reserve(1), number(5));
    assert_eq!(third.reserve(2), number(6));
    assert_eq!(second.reserve(1), number(8));
}

#[test]
fn numbers_given_back_are_reserved_again_unless_others_were_meanwhile() {
    let page = SenderPage::create().unwrap();
    let sender = SenderPage::map_rw(page.as_fd()).unwrap();
    assert_eq!(sender.reserve(1), number(1));
    assert_eq!(sender.reserve(3), number(2));
    sender.give_back(number(2), 3);
    assert_eq!((sender.reserved(), sender.reserve(1)), (number(1), number(2)));
    assert_eq!(sender.reserve(1), number(3));
    sender.give_back(number(2), 1);
    assert_eq!(sender.reserved(), number(3), "it is a gap");
}

#[test]
fn threads_that_reserve_share_no_number() {
    let page = SenderPage::create().unwrap();
    let sender = SenderPage::map_rw(page.as_fd()).unwrap();
    let mut all: Vec<u64> = std::thread::scope(|scope| {
        let reserve = || (0..1000).map(|_| sender.reserve(2).get()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(reserve)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert_eq!(all, (0..4000).map(|at| 1 + 2 * at).collect::<Vec<_>>());
}

#[test]
fn counts_of_a_sender_are_read_by_others_and_kept() {
    let page = SenderPage::create().unwrap();
    let reader = SenderPageReader::map_ro(read_only(page.as_fd()).unwrap().as_fd()).unwrap();
    assert_eq!((reader.stats(), reader.reserved()), (SenderStats::default(), MessageNumber::NONE));
    let sender = SenderPage::map_rw(page.as_fd()).unwrap();
    sender.reserve(3);
    sender.count_memfd(1000);
    sender.count_sent(3, 1200, 1);
    sender.count_refused();
    drop(sender);
    let next = SenderPage::map_rw(page.as_fd()).unwrap();
    next.count_sent(1, 10, 0);
    let wanted = SenderStats { messages: 4, bytes: 1210, asks: 1, memfd_bytes: 1000, refused: 1 };
    assert_eq!((reader.stats(), reader.reserved()), (wanted, number(3)));
    next.count_memfd(500);
    next.uncount_memfd(500);
    assert_eq!(reader.stats().memfd_bytes, 1000);
    next.settle_memfd(900);
    assert_eq!(reader.stats().memfd_bytes, 900);
}

#[test]
fn marks_and_times_of_a_receiver_are_read_by_others_and_kept() {
    let page = ReceiverPage::create().unwrap();
    let reader = ReceiverPageReader::map_ro(read_only(page.as_fd()).unwrap().as_fd()).unwrap();
    assert_eq!(reader.marks(), Marks::default());
    assert_eq!(reader.propagation().count(), 0);
    let mut receiver = ReceiverPage::map_rw(page.as_fd()).unwrap();
    receiver.mark_taken(number(7));
    receiver.count_handed(10);
    receiver.mark_done(number(7));
    receiver.mark_consumed(number(9), 4000);
    receiver.mark_taken(number(10));
    receiver.count_handed(15);
    drop(receiver); // killed while it handled number 10
    let wanted = Marks { taken: number(10), done: number(7), consumed: number(9) };
    assert_eq!(reader.marks(), wanted);
    let mut next = ReceiverPage::map_rw(page.as_fd()).unwrap();
    assert_eq!(next.marks(), wanted);
    next.count_handed_again();
    next.count_handed(20);
    let stats = reader.stats();
    assert_eq!((stats.handed, stats.redelivered, stats.memfd_consumed), (4, 1, 4000));
    let times = reader.propagation();
    assert_eq!(times, next.propagation());
    assert_eq!((times.count(), times.mean_ns(), times.standard_deviation_ns()), (3, Some(15.0), Some(5.0)));
    assert_eq!(times.max_ns(), Some(20));
}

#[test]
fn each_side_writes_its_own_page_only() {
    let page = ReceiverPage::create().unwrap();
    let handed_out = read_only(page.as_fd()).unwrap();
    let refused = ReceiverPage::map_rw(handed_out.as_fd()).unwrap_err();
    let PageError::Map(source) = refused else { panic!("{refused:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(ReceiverPageReader::map_ro(handed_out.as_fd()).is_ok());
}

#[test]
fn what_is_not_this_page_is_refused() {
    let sender = SenderPage::create().unwrap();
    let receiver = ReceiverPage::create().unwrap();
    assert!(matches!(ReceiverPage::map_rw(sender.as_fd()), Err(PageError::OtherKind)));
    assert!(matches!(SenderPageReader::map_ro(receiver.as_fd()), Err(PageError::OtherKind)));
    let null = File::open("/dev/null").unwrap();
    assert!(matches!(SenderPageReader::map_ro(null.as_fd()), Err(PageError::NotSealed)));
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    for (length, seals) in [
        (4096, SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL),
        (4096, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL),
        (4096, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW),
    ] {
        let open = memory(length, seals);
        assert!(matches!(SenderPage::map_rw(open.as_fd()), Err(PageError::NotSealed)), "{seals:?}");
    }
    for length in [0, 4095, 8192] {
        let other = memory(length, seals);
        let refused = SenderPage::map_rw(other.as_fd());
        assert!(matches!(refused, Err(PageError::Size { actual }) if actual == length as i64));
    }
    assert!(matches!(SenderPage::map_rw(memory(4096, seals).as_fd()), Err(PageError::OtherKind)));
}

#[test]
fn a_page_of_another_layout_is_refused() {
    let page = File::from(SenderPage::create().unwrap());
    page.write_at(&77_u64.to_ne_bytes(), 8).unwrap();
    assert!(matches!(SenderPage::map_rw(page.as_fd()), Err(PageError::Version { found: 77 })));
}

#[test]
fn a_page_cannot_be_resized_nor_sealed_further() {
    let page = File::from(SenderPage::create().unwrap());
    assert!(page.set_len(0).is_err());
    assert!(page.set_len(8192).is_err());
    assert!(fcntl(&page, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE)).is_err());
}

#[test]
fn a_page_full_of_lies_gives_numbers_and_nothing_worse() {
    let page = File::from(ReceiverPage::create().unwrap());
    page.write_at(&[0xff; 4080], 16).unwrap();
    let reader = ReceiverPageReader::map_ro(page.as_fd()).unwrap();
    let lies = reader.propagation();
    assert_eq!(lies.max_ns(), Some(u64::MAX));
    assert!(lies.p99_ns().is_some());
    let mut next = ReceiverPage::map_rw(page.as_fd()).unwrap();
    next.count_handed(5);
    next.mark_consumed(number(1), u64::MAX);
    assert!(reader.propagation().p50_ns().is_some());
}

fn memory(length: u64, seals: SealFlag) -> OwnedFd {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(c"test", flags).unwrap());
    file.set_len(length).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.into()
}
