//! What concerns the whole process, environment and descriptor table, in one of one thread.
#![expect(unsafe_code, reason = "setting the environment")]
#![expect(clippy::unwrap_used, reason = "a test that fails here should say so here")]

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use watchdog_seqpacket::{AdoptError, InheritedError, Received, Seqpacket, inherited};

const VARIABLE: &str = "WATCHDOG_TEST_SOCKET";

fn tell(value: &str) {
    // SAFETY: `main` calls this while there is one thread.
    unsafe { std::env::set_var(VARIABLE, value) };
}

fn main() {
    for (name, check) in [
        ("without_the_variable_nothing_is_inherited", nothing_told as fn()),
        ("the_socket_is_taken_once_and_kept_from_children", taken_once),
        ("what_is_no_number_is_named", no_number),
        ("what_is_not_open_is_refused", not_open),
        ("what_is_no_seqpacket_socket_is_refused_and_stays_open", other_kind),
        ("a_full_descriptor_table_loses_no_packet_and_no_descriptor", full_table),
        ("beside_other_threads_it_is_refused", beside_threads),
    ] {
        check();
        println!("test {name} ... ok");
    }
}

fn nothing_told() {
    assert!(matches!(inherited(VARIABLE), Err(InheritedError::NotSet { .. })));
}

fn taken_once() {
    let (ours, theirs) = Seqpacket::pair().unwrap();
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = OwnedFd::from(theirs).into_raw_fd();
    tell(&number.to_string());

    let taken = inherited(VARIABLE).unwrap();

    assert_eq!(taken.as_raw_fd(), number);
    assert_eq!(fcntl(&taken, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
    assert_eq!(std::env::var_os(VARIABLE), None);
    assert!(matches!(inherited(VARIABLE), Err(InheritedError::NotSet { .. })));
    ours.send(&[IoSlice::new(b"welcome")], &[]).unwrap();
    assert!(matches!(taken.recv(&mut [0; 16], 0), Ok(Received::Packet(packet)) if packet.length == 7));
}

fn no_number() {
    for value in ["", "three", "-1", "0", "2", "99999999999"] {
        tell(value);
        let result = inherited(VARIABLE);
        assert!(matches!(result, Err(InheritedError::NoNumber { value: told, .. }) if told == value));
    }
}

fn not_open() {
    tell("987");
    let result = inherited(VARIABLE);
    assert!(matches!(
        result,
        Err(InheritedError::Socket { source: AdoptError::Ask { descriptor: 987, source }, .. })
            if source.raw_os_error() == Some(libc::EBADF)
    ));
}

fn other_kind() {
    let (stream, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    tell(&stream.as_raw_fd().to_string());
    let result = inherited(VARIABLE);
    assert!(matches!(result, Err(InheritedError::Socket { source: AdoptError::OtherKind { .. }, .. })));
    assert!(fcntl(&stream, FcntlArg::F_GETFD).is_ok());
    let file = File::open("/dev/null").unwrap();
    tell(&file.as_raw_fd().to_string());
    assert!(matches!(
        inherited(VARIABLE),
        Err(InheritedError::Socket { source: AdoptError::Ask { source, .. }, .. })
            if source.raw_os_error() == Some(libc::ENOTSOCK)
    ));
}

fn full_table() {
    let (a, b) = Seqpacket::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    a.send(&[IoSlice::new(b"two beside")], &[null.as_fd(), null.as_fd()]).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let one_left = null.try_clone().unwrap().as_raw_fd() as u64 + 1; // the lowest free number and no more
    setrlimit(Resource::RLIMIT_NOFILE, one_left, hard).unwrap();

    for _ in 0..2 {
        for full in [b.peek(&mut [0; 16], 2), b.recv(&mut [0; 16], 2)] {
            assert_eq!(full.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        }
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let Received::Packet(packet) = b.recv(&mut [0; 16], 2).unwrap() else {
        panic!("the packet is still there")
    };
    assert_eq!((packet.length, packet.descriptors.len()), (10, 2));
}

fn beside_threads() {
    tell("3");
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv().is_err());
    let result = inherited(VARIABLE);
    drop(end);
    assert!(other.join().unwrap());
    assert!(matches!(result, Err(InheritedError::Threads { threads: 2, .. })));
}
