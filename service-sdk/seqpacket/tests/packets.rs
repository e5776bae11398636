//! What the kernel does with packets and descriptors, as the crate promises it.
#![expect(clippy::unwrap_used, reason = "a test that fails here should say so here")]

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use watchdog_seqpacket::{
    AdoptError, Handover, MAX_DESCRIPTORS, Packet, PeerCredentials, Received, Seqpacket, Wear,
};

/// What no test should ever reach.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn send(socket: &Seqpacket, bytes: &[u8]) {
    socket.send(&[IoSlice::new(bytes)], &[]).unwrap();
}

fn packet(received: Received) -> Packet {
    match received {
        Received::Packet(packet) => packet,
        other => panic!("{other:?} and no packet"),
    }
}

fn read(socket: &Seqpacket) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let length = packet(socket.recv(&mut buffer, 0).unwrap()).length;
    buffer[..length].to_vec()
}

fn fill(socket: &Seqpacket) -> usize {
    (0..)
        .find(|_| match socket.send(&[IoSlice::new(&[7; 64])], &[]) {
            Ok(()) => false,
            Err(full) => {
                assert_eq!(full.kind(), ErrorKind::WouldBlock);
                true
            }
        })
        .unwrap()
}

fn raw_send(socket: &Seqpacket, bytes: &[u8]) {
    let flags = nix::sys::socket::MsgFlags::empty();
    assert_eq!(nix::sys::socket::send(socket.as_raw_fd(), bytes, flags), Ok(bytes.len()));
}

/// Descriptors of this process that lead to the same file as `file`: other tests' do not count.
fn held(file: &File) -> usize {
    let wanted = file.metadata().unwrap();
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::metadata(entry.unwrap().path()).ok())
        .filter(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        .count()
}

#[test]
fn packets_keep_their_boundaries_and_order() {
    let (a, b) = Seqpacket::pair().unwrap();
    send(&a, b"one");
    a.send(&[IoSlice::new(b"tw"), IoSlice::new(b""), IoSlice::new(b"o")], &[]).unwrap();
    send(&b, b"back");
    assert_eq!(read(&b), b"one");
    assert_eq!(read(&b), b"two");
    assert_eq!(read(&a), b"back");
    assert_eq!(b.recv(&mut [0; 8], 0).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn nothing_blocks_where_somebody_made_the_end_blocking() {
    let (a, b) = Seqpacket::pair().unwrap();
    for end in [&a, &b] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    }
    assert_eq!(b.recv(&mut [0; 8], 0).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(b.peek(&mut [0; 8], 1).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(b.consume(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(fill(&a) > 0);
}

#[test]
fn both_ends_are_close_on_exec() {
    let (a, b) = Seqpacket::pair().unwrap();
    for end in [&a, &b, &a.try_clone().unwrap()] {
        assert_eq!(fcntl(end, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
    }
}

#[test]
fn only_seqpacket_sockets_are_adopted() {
    let (a, b) = Seqpacket::pair().unwrap();
    let a = Seqpacket::from_fd(OwnedFd::from(a)).unwrap();
    send(&a, b"still connected");
    assert_eq!(read(&b), b"still connected");
    let (stream, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(matches!(Seqpacket::from_fd(stream.into()), Err(AdoptError::OtherKind { .. })));
    let file = File::open("/dev/null").unwrap();
    assert!(matches!(Seqpacket::from_fd(file.into()), Err(AdoptError::Ask { .. })));
}

#[test]
fn an_empty_packet_is_never_sent() {
    let (a, b) = Seqpacket::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    for parts in [&[][..], &[IoSlice::new(b"")][..], &[IoSlice::new(b""), IoSlice::new(b"")][..]] {
        assert_eq!(a.send(parts, &[]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(a.send(parts, &[file.as_fd()]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(b.peek(&mut [0; 8], 0).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn one_and_as_many_descriptors_as_the_kernel_takes_arrive() {
    let (a, b) = Seqpacket::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    for count in [1, 2, MAX_DESCRIPTORS] {
        a.send(&[IoSlice::new(b"beside")], &vec![null.as_fd(); count]).unwrap();
        let packet = packet(b.recv(&mut [0; 16], MAX_DESCRIPTORS).unwrap());
        assert_eq!(packet.descriptors.len(), count);
        for descriptor in &packet.descriptors {
            assert_eq!(fcntl(descriptor, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
        }
    }
    let one_more = vec![null.as_fd(); MAX_DESCRIPTORS + 1];
    let refused = a.send(&[IoSlice::new(b"beside")], &one_more).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(b.peek(&mut [0; 16], 0).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn descriptors_arrive_in_the_senders_order() {
    let (a, b) = Seqpacket::pair().unwrap();
    let files: Vec<OwnedFd> = ["first", "second", "third"]
        .map(|text| watchdog_seqpacket::payload::seal(text.as_bytes()).unwrap())
        .into();
    let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    a.send(&[IoSlice::new(b"three")], &borrowed).unwrap();
    let received = packet(b.recv(&mut [0; 16], 3).unwrap()).descriptors;
    let texts: Vec<Vec<u8>> = received
        .iter()
        .zip([5, 6, 5])
        .map(|(descriptor, length)| {
            watchdog_seqpacket::payload::read(descriptor.as_fd(), length, 100).unwrap()
        })
        .collect();
    assert_eq!(texts, [&b"first"[..], b"second", b"third"]);
}

#[test]
fn a_packet_can_be_looked_at_twice_before_it_is_consumed() {
    let (a, b) = Seqpacket::pair().unwrap();
    send(&a, b"head of it");
    send(&a, b"behind");
    for _ in 0..2 {
        let mut buffer = [0; 16];
        assert_eq!(packet(b.peek(&mut buffer, 0).unwrap()).length, 10);
        assert_eq!(&buffer[..10], b"head of it");
    }
    let mut head = [0; 4];
    assert_eq!(b.consume(&mut head).unwrap(), 4);
    assert_eq!(&head, b"head");
    assert_eq!(read(&b), b"behind");
}

#[test]
fn a_packet_behind_others_is_peeked_whole_and_the_next_peek_is_at_the_head_again() {
    let (a, b) = Seqpacket::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    send(&a, b"first");
    send(&a, b"second one");
    a.send(&[IoSlice::new(b"third")], &[file.as_fd()]).unwrap();
    let mut buffer = [0; 64];
    for (offset, expected, descriptors) in
        [(5, &b"second one"[..], 0), (15, b"third", 1), (5, b"second one", 0)]
    {
        let found = packet(b.peek_behind(offset, &mut buffer, 1).unwrap());
        assert_eq!((&buffer[..found.length], found.descriptors.len()), (expected, descriptors));
    }
    assert_eq!(b.peek_behind(20, &mut buffer, 1).unwrap_err().kind(), ErrorKind::WouldBlock);
    let head = packet(b.peek(&mut buffer, 0).unwrap());
    assert_eq!(&buffer[..head.length], b"first");
    // Consuming takes from the head, and moves what is behind it.
    b.consume(&mut []).unwrap();
    let found = packet(b.peek_behind(10, &mut buffer, 1).unwrap());
    assert_eq!(&buffer[..found.length], b"third");
    assert_eq!(read(&b), b"second one");
}

#[test]
fn peeking_and_consuming_with_a_descriptor_leaks_none() {
    let (a, b) = Seqpacket::pair().unwrap();
    let file = tempfile();
    for _ in 0..3 {
        a.send(&[IoSlice::new(b"beside")], &[file.as_fd()]).unwrap();
        assert_eq!(held(&file), 1, "in flight it has no number");
        let first = packet(b.peek(&mut [0; 16], 1).unwrap()).descriptors;
        let second = packet(b.peek(&mut [0; 16], 1).unwrap()).descriptors;
        assert_eq!((first.len(), second.len(), held(&file)), (1, 1, 3), "each peek makes a new one");
        assert!(matches!(b.peek(&mut [0; 16], 0), Ok(Received::TooManyDescriptors)));
        assert_eq!(held(&file), 3, "a peek that wants none makes none");
        b.consume(&mut [0; 16]).unwrap();
        drop((first, second));
        assert_eq!(held(&file), 1);
    }
}

#[test]
fn a_packet_is_taken_in_one_call_with_what_is_beside_it() {
    let (a, b) = Seqpacket::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    a.send(&[IoSlice::new(b"first")], &[null.as_fd()]).unwrap();
    a.send(&[IoSlice::new(b"second")], &[null.as_fd(), null.as_fd()]).unwrap();
    a.send(&[IoSlice::new(b"third")], &[]).unwrap();
    assert_eq!(packet(b.take(&mut [0; 16], 1).unwrap()).descriptors.len(), 1);
    let second = b.take(&mut [0; 16], 1).unwrap();
    assert!(matches!(second, Received::TooManyDescriptors), "{second:?}");
    assert_eq!(packet(b.take(&mut [0; 16], 1).unwrap()).length, 5);
    assert_eq!(b.take(&mut [0; 16], 1).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(a);
    assert!(matches!(b.take(&mut [0; 16], 1), Ok(Received::End)));
}

#[test]
fn more_descriptors_than_wanted_are_a_violation_and_kept_by_nobody() {
    let (a, b) = Seqpacket::pair().unwrap();
    let file = tempfile();
    for wanted in [0, 1, 2] {
        a.send(&[IoSlice::new(b"three")], &[file.as_fd(), file.as_fd(), file.as_fd()]).unwrap();
        assert!(matches!(b.peek(&mut [0; 16], wanted), Ok(Received::TooManyDescriptors)));
        assert!(matches!(b.recv(&mut [0; 16], wanted), Ok(Received::TooManyDescriptors)));
        assert_eq!(held(&file), 1);
        send(&a, b"next");
        assert_eq!(read(&b), b"next");
    }
}

/// A file nobody else has open.
fn tempfile() -> File {
    File::from(watchdog_seqpacket::payload::seal(b"").unwrap())
}

#[test]
fn a_packet_longer_than_the_buffer_tells_its_length() {
    let (a, b) = Seqpacket::pair().unwrap();
    send(&a, &[1; 100]);
    send(&a, b"behind");
    assert!(matches!(b.peek(&mut [0; 99], 1), Ok(Received::Oversize { length: 100 })));
    assert!(matches!(b.recv(&mut [0; 99], 0), Ok(Received::Oversize { length: 100 })));
    assert_eq!(read(&b), b"behind");
}

#[test]
fn the_end_is_told_from_an_empty_packet() {
    let (a, b) = Seqpacket::pair().unwrap();
    raw_send(&a, b"");
    send(&a, b"behind");
    assert!(matches!(b.peek(&mut [0; 8], 1), Ok(Received::Empty)));
    b.consume(&mut []).unwrap();
    raw_send(&a, b"");
    assert_eq!(read(&b), b"behind");
    assert!(matches!(b.recv(&mut [0; 8], 1), Ok(Received::Empty)));
    assert_eq!(b.peek(&mut [0; 8], 0).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(a);
    for _ in 0..2 {
        assert!(matches!(b.peek(&mut [0; 8], 1), Ok(Received::End)));
        assert!(matches!(b.recv(&mut [0; 8], 1), Ok(Received::End)));
    }
}

#[test]
fn an_empty_packet_hides_nothing_that_was_sent_before_the_end() {
    let (a, b) = Seqpacket::pair().unwrap();
    raw_send(&a, b"");
    send(&a, b"last word");
    drop(a);
    assert!(matches!(b.recv(&mut [0; 8], 0), Ok(Received::Empty)));
    assert_eq!(read(&b), b"last word");
    assert!(matches!(b.recv(&mut [0; 8], 0), Ok(Received::End)));
}

#[test]
fn what_a_peer_sent_before_it_left_something_unread_is_read() {
    let (a, b) = Seqpacket::pair().unwrap();
    send(&b, b"never read");
    send(&a, b"last word");
    drop(a); // with something unread: the kernel reports a reset before the packet
    assert_eq!(read(&b), b"last word");
    assert!(matches!(b.recv(&mut [0; 8], 0), Ok(Received::End)));
}

#[test]
fn sending_to_nobody_is_a_broken_pipe() {
    for unread in [false, true] {
        let (a, b) = Seqpacket::pair().unwrap();
        if unread {
            send(&b, b"never read"); // its first error would be a reset
        }
        drop(a);
        assert_eq!(b.send(&[IoSlice::new(b"x")], &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

#[test]
fn what_is_outstanding_grows_with_packets_and_shrinks_with_reads() {
    let (a, b) = Seqpacket::pair().unwrap();
    assert_eq!(a.outstanding().unwrap(), 0);
    send(&a, &[0; 64]);
    let one = a.outstanding().unwrap();
    assert!(one > 64, "the kernel's overhead counts: {one}");
    send(&a, &[0; 64]);
    assert_eq!(a.outstanding().unwrap(), 2 * one);
    assert_eq!(b.outstanding().unwrap(), 0);
    read(&b);
    assert_eq!(a.outstanding().unwrap(), one);
    read(&b);
    assert_eq!(a.outstanding().unwrap(), 0);
}

#[test]
fn the_send_bound_is_what_the_kernel_holds() {
    let (a, _b) = Seqpacket::pair().unwrap();
    for bound in [32 * 1024, 100_000] {
        assert_eq!(a.set_send_bound(bound).unwrap(), bound);
        assert_eq!(a.send_bound().unwrap(), bound);
    }
    fill(&a);
    let outstanding = a.outstanding().unwrap();
    assert!((100_000..102_000).contains(&outstanding), "{outstanding}");
}

#[test]
fn a_packet_over_the_bound_is_refused_and_not_waited_for() {
    let (a, _b) = Seqpacket::pair().unwrap();
    let bound = a.set_send_bound(16 * 1024).unwrap();
    let long = vec![0; bound];
    let refused = a.send_by(&[IoSlice::new(&long)], &[], deadline()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
fn a_blocking_send_goes_as_soon_as_there_is_any_room() {
    let (a, b) = Seqpacket::pair().unwrap();
    fill(&a);
    let now = Instant::now();
    assert_eq!(a.send_by(&[IoSlice::new(b"x")], &[], now).unwrap_err().kind(), ErrorKind::TimedOut);
    let sender = std::thread::spawn(move || {
        a.send_by(&[IoSlice::new(b"at last")], &[], deadline()).map(|()| a.outstanding().unwrap())
    });
    // One read makes room for one packet, long before three quarters are free and the kernel says writable.
    read(&b);
    assert!(sender.join().unwrap().unwrap() > 100_000, "the others are still queued");
}

#[test]
fn a_blocking_receive_waits_for_a_packet_or_the_end() {
    let (a, b) = Seqpacket::pair().unwrap();
    let now = Instant::now();
    assert_eq!(b.recv_by(&mut [0; 8], 0, now).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(!b.wait_readable(now).unwrap());
    let receiver = std::thread::spawn(move || {
        let first = packet(b.recv_by(&mut [0; 8], 0, deadline()).unwrap()).length;
        (first, matches!(b.recv_by(&mut [0; 8], 0, deadline()), Ok(Received::End)))
    });
    send(&a, b"four");
    drop(a);
    assert_eq!(receiver.join().unwrap(), (4, true));
}

#[test]
fn a_pair_is_known_by_who_made_it() {
    let (a, _b) = Seqpacket::pair().unwrap();
    let process = std::fs::metadata("/proc/self").unwrap();
    let ours = PeerCredentials { pid: std::process::id(), uid: process.uid(), gid: process.gid() };
    assert_eq!(a.peer_credentials().unwrap(), ours);
}

#[test]
fn a_handover_undoes_what_the_last_holder_set() {
    let (a, b) = Seqpacket::pair().unwrap();
    a.send(&[IoSlice::new(b"AAAA queued")], &[]).unwrap();
    fcntl(&b, FcntlArg::F_SETFL(OFlag::O_ASYNC)).unwrap();
    set_int(&b, libc::SO_PEEK_OFF, 2);
    set_int(&b, libc::SO_TIMESTAMP, 1);
    setsockopt(&b, sockopt::PassCred, &true).unwrap();
    setsockopt(&b, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(7, 0)).unwrap();
    b.set_send_bound(5000).unwrap();

    assert_eq!(b.reset_for_handover(64 * 1024).unwrap(), Handover::Clean);

    let flags = OFlag::from_bits_retain(fcntl(&b, FcntlArg::F_GETFL).unwrap());
    assert!(flags.contains(OFlag::O_NONBLOCK) && !flags.contains(OFlag::O_ASYNC));
    assert_eq!(get_int(&b, libc::SO_PEEK_OFF), -1);
    assert_eq!(get_int(&b, libc::SO_TIMESTAMP), 0);
    assert_eq!(get_int(&b, libc::SO_PASSCRED), 0);
    let timeout = nix::sys::socket::getsockopt(&b, sockopt::ReceiveTimeout).unwrap();
    assert_eq!(timeout, nix::sys::time::TimeVal::new(0, 0));
    assert_eq!(b.send_bound().unwrap(), 64 * 1024);
    assert_eq!(read(&b), b"AAAA queued", "what was queued is still whole");
}

#[test]
fn a_full_end_is_not_worn() {
    let (a, _b) = Seqpacket::pair().unwrap();
    let bound = a.send_bound().unwrap();
    fill(&a);
    let before = a.outstanding().unwrap();
    assert_eq!(a.reset_for_handover(bound).unwrap(), Handover::Clean);
    assert_eq!(a.outstanding().unwrap(), before, "asking sends nothing");
}

#[test]
fn an_end_with_a_filter_is_worn() {
    let (_a, b) = Seqpacket::pair().unwrap();
    attach_filter(&b);
    assert_eq!(b.reset_for_handover(64 * 1024).unwrap(), Handover::Worn(Wear::Filter));
}

#[test]
fn a_shutdown_of_either_end_in_either_direction_is_seen_at_both() {
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let (a, b) = Seqpacket::pair().unwrap();
        shutdown(a.as_raw_fd(), how).unwrap();
        for end in [&a, &b] {
            assert_eq!(end.reset_for_handover(64 * 1024).unwrap(), Handover::Worn(Wear::Shutdown));
        }
    }
}

#[test]
fn a_payload_goes_beside_its_header() {
    let (a, b) = Seqpacket::pair().unwrap();
    let payload = watchdog_seqpacket::payload::seal(&[9; 200_000]).unwrap();
    a.send(&[IoSlice::new(b"200000")], &[payload.as_fd()]).unwrap();
    drop(payload);
    let mut packet = packet(b.recv(&mut [0; 16], 1).unwrap());
    let received = packet.descriptors.pop().unwrap();
    let copy = watchdog_seqpacket::payload::read(received.as_fd(), 200_000, 1 << 24).unwrap();
    assert!(copy.iter().all(|byte| *byte == 9));
    let mut by_offset = Vec::new();
    File::from(received).read_to_end(&mut by_offset).unwrap();
    assert!(by_offset.is_empty(), "the shared offset is where its writer left it, and was not used");
}

fn set_int(socket: &Seqpacket, name: i32, value: i32) {
    sys::set(socket.as_fd(), name, &value);
}

fn get_int(socket: &Seqpacket, name: i32) -> i32 {
    sys::get(socket.as_fd(), name)
}

fn attach_filter(socket: &Seqpacket) {
    sys::attach_accept_all(socket.as_fd());
}

/// What a service could do by itself, and this crate has no calls for.
mod sys {
    #![expect(unsafe_code, reason = "the system calls of a hostile service")]
    use std::os::fd::{AsRawFd, BorrowedFd};

    pub(super) fn set<T>(socket: BorrowedFd<'_>, name: i32, value: &T) {
        // SAFETY: the pointer and the length are those of `value`.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
            )
        };
        assert_eq!(result, 0, "option {name}: {}", std::io::Error::last_os_error());
    }

    pub(super) fn get(socket: BorrowedFd<'_>, name: i32) -> i32 {
        let (mut value, mut length) = (0_i32, 4_u32);
        // SAFETY: the pointer and the length are those of `value`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0);
        value
    }

    pub(super) fn attach_accept_all(socket: BorrowedFd<'_>) {
        const BPF_RET: u16 = 6;
        let mut accept = libc::sock_filter { code: BPF_RET, jt: 0, jf: 0, k: u32::MAX };
        set(socket, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len: 1, filter: &raw mut accept });
    }
}
