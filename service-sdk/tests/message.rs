//! What the derives promise of bytes and contracts.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use watchdog_service::__private::{Answers, Contract, Encoded, ReplyPort};
use watchdog_service::{DecodeError, Message, MessageNumber, Payload, Reply};

#[derive(Debug, Clone, PartialEq, Payload)]
struct Point {
    x: i32,
    y: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Payload)]
enum Shape {
    Dot,
    Line(Point, Point),
    Label { text: String },
}

#[derive(Debug, Message)]
enum DrawMsg {
    Clear,
    Draw { shape: Shape, at: Point },
    Paste(Vec<u8>, u8),
    Count { reply: Reply<u64> },
    Find(String, Reply<Option<Point>>, BTreeMap<String, Shape>),
}

fn encoded(message: &DrawMsg) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).expect("it can be written");
    bytes
}

fn point(x: i32) -> Point {
    Point { x, y: Some(-x) }
}

/// A lane that shows its answers.
struct Lane(mpsc::Sender<Option<Vec<u8>>>);

impl Answers for Lane {
    fn answer(&self, ask: MessageNumber, answer: Option<Encoded>) {
        assert_eq!(ask, MessageNumber::FIRST);
        // A test that looks at no answer has closed the other end.
        let _ = self.0.send(answer.map(|answer| answer.concat()));
    }
}

/// A port, and what comes through it.
fn port() -> (ReplyPort, mpsc::Receiver<Option<Vec<u8>>>) {
    let (answer, answers) = mpsc::channel();
    (ReplyPort::new(Arc::new(Lane(answer)), MessageNumber::FIRST), answers)
}

#[test]
fn what_is_told_arrives() {
    let shape = Shape::Line(point(1), point(300));
    let bytes = encoded(&DrawMsg::Draw { shape: shape.clone(), at: point(-5) });
    match DrawMsg::decode(&bytes, None).unwrap() {
        DrawMsg::Draw { shape: found, at } => assert_eq!((found, at), (shape, point(-5))),
        other => panic!("{other:?}"),
    }
    assert!(matches!(DrawMsg::decode(&encoded(&DrawMsg::Clear), None).unwrap(), DrawMsg::Clear));
}

#[test]
fn the_bytes_are_those_of_a_postcard_enum_without_its_reply() {
    assert_eq!(encoded(&DrawMsg::Clear), [0]);
    assert_eq!(encoded(&DrawMsg::Paste(vec![7, 8, 9], 200)), [2, 3, 7, 8, 9, 200]);
    assert_eq!(encoded(&DrawMsg::Count { reply: Reply::inert() }), [3]);
    let labels =
        BTreeMap::from([("a".to_owned(), Shape::Label { text: "b".into() }), ("c".into(), Shape::Dot)]);
    let bytes = [4, 1, b'z', 2, 1, b'a', 2, 1, b'b', 1, b'c', 0];
    assert_eq!(encoded(&DrawMsg::Find("z".into(), Reply::inert(), labels)), bytes);
}

#[test]
fn what_is_asked_is_answered_through_its_port() {
    let (port, answers) = port();
    let bytes = encoded(&DrawMsg::Find("z".into(), Reply::inert(), BTreeMap::new()));
    match DrawMsg::decode(&bytes, Some(port)).unwrap() {
        DrawMsg::Find(name, reply, shapes) => {
            assert_eq!((name.as_str(), shapes.len()), ("z", 0));
            reply.send(Some(point(1)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(answers.recv().unwrap(), Some(vec![1, 2, 1, 1]));
    assert!(answers.recv().is_err(), "once");
}

#[test]
fn a_dropped_reply_says_so() {
    let (port, answers) = port();
    match DrawMsg::decode(&[3], Some(port)).unwrap() {
        DrawMsg::Count { reply } => drop(reply),
        other => panic!("{other:?}"),
    }
    assert_eq!(answers.recv().unwrap(), None);
}

#[test]
fn which_messages_expect_a_reply_is_known() {
    assert!(!DrawMsg::Clear.expects_reply());
    assert!(DrawMsg::Count { reply: Reply::inert() }.expects_reply());
}

#[test]
fn bytes_that_are_not_exactly_one_message_are_refused() {
    let refused = |bytes: &[u8]| DrawMsg::decode(bytes, None).unwrap_err();
    assert!(matches!(refused(&[]), DecodeError::Postcard(_)));
    assert!(matches!(refused(&[0, 1]), DecodeError::Trailing { extra: 1 }));
    assert!(matches!(refused(&[5]), DecodeError::Variant { found: 5, known: 5 }));
    assert!(matches!(refused(&[2, 9, 1]), DecodeError::Postcard(_)));
    assert!(matches!(refused(&[3]), DecodeError::Reply { found: 3, asked: false }));
    let (port, answers) = port();
    let asked = DrawMsg::decode(&[0], Some(port)).unwrap_err();
    assert!(matches!(asked, DecodeError::Reply { found: 0, asked: true }));
    assert_eq!(answers.recv().unwrap(), None, "the asker does not wait for its deadline");
    assert!(<()>::decode(&[0], None).is_err(), "an inbox that takes nothing takes nothing");
}

#[test]
fn no_bytes_make_it_panic() {
    // Every start of two bytes, with a long tail that lengths may point into.
    for first in 0..=255 {
        for second in 0..=255 {
            let mut bytes = vec![first, second];
            bytes.extend([255; 12]);
            let _ = DrawMsg::decode(&bytes, Some(port().0));
        }
    }
}

#[test]
fn a_contract_is_these_hashes_for_ever() {
    assert_eq!(
        DrawMsg::contract().to_string(),
        "Clear:cbf29ce484222325 Draw:745a18a612900586 Paste:43472b77f79be31c Count:15841b7f4ba977c7 \
         Find:1ca8e1eb0bf55a6e"
    );
    assert_eq!(<()>::contract(), Contract::default());
}

/// The contracts of two versions of a message.
macro_rules! contracts {
    ($($(#[$attribute:meta])* { $($variant:tt)* })*) => {
        [$({
            #[derive(Message)]
            $(#[$attribute])*
            enum Version { $($variant)* }
            Version::contract()
        }),*]
    };
}

#[test]
#[expect(dead_code, reason = "only the contracts count")]
fn a_contract_changes_with_names_types_order_and_replies() {
    mod other {
        #[derive(watchdog_service::Payload)]
        pub(crate) struct Point {
            y: Option<i32>,
            x: i32,
        }
    }
    let all = contracts! {
        { A { x: u32, y: u64 } }
        { A { y: u64, x: u32 } }
        { A { x: u64, y: u64 } }
        { A { x: u32 } }
        { A { x: u32, y: u64, reply: Reply<()> } }
        { A { x: u32, y: u64, reply: Reply<u8> } }
        #[message(idempotent)] { A { x: u32, y: u64, reply: Reply<u8> } }
        { A(u32, u64) }
        { B { x: u32, y: u64 } }
        { A { x: Point } }
        { A { x: other::Point } }
    };
    for (at, one) in all.iter().enumerate() {
        for other in &all[at + 1..] {
            assert_ne!(one, other);
        }
    }
}

#[test]
#[expect(dead_code, reason = "only the contracts count")]
fn a_contract_does_not_change_with_docs_or_the_place_of_its_reply_and_may_grow() {
    let [plain, documented, grown] = contracts! {
        { A { x: u32, reply: Reply<u8> } }
        /** Says A. */ { /** A. */ A { reply: watchdog_service::Reply<u8>, /** x. */ x: u32 } }
        { A { x: u32, reply: Reply<u8> }, B }
    };
    assert_eq!(plain, documented);
    assert_eq!(plain.fits(&grown), Ok(()));
    assert!(grown.fits(&plain).is_err());
}
