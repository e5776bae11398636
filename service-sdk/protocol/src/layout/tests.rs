use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::to_json::Reader;
use super::*;
use crate::limits::{MAX_LAYOUT, MAX_LAYOUT_DEPTH, MAX_MESSAGE_TEXT};
use crate::manifest::{Contract, Manifest, MessageShape, fnv1a};

/// Everything a message may have, at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct All {
    flag: bool,
    small: (u8, i8),
    middle: (u16, i16, u32, i32),
    large: (u64, i64, u128, i128),
    float: f64,
    short: f32,
    letter: char,
    text: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    nothing: (),
    unit: Nothing,
    maybe: Option<Wrapped>,
    list: Vec<Shape>,
    by_name: BTreeMap<String, Option<u64>>,
    by_number: BTreeMap<i16, bool>,
    by_letter: BTreeMap<char, u8>,
    by_kind: BTreeMap<Kind, u8>,
    result: Result<u8, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle(f32),
    Line(u8, u8),
    Label { text: String, size: Option<u32> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Kind {
    One,
    Two,
}

const ALL: &str = "All{flag:bool,small:(u8,i8,),middle:(u16,i16,u32,i32,),large:(u64,i64,u128,i128,),float:f64,short:f32,\
    letter:char,text:string,bytes:bytes,nothing:unit,unit:Nothing,maybe:?Wrapped(string,),\
    list:[Shape|Dot|Circle(f32,)|Line(u8,u8,)|Label{text:string,size:?u32,}|,],by_name:<string,?u64,>,by_number:<i16,bool,>,\
    by_letter:<char,u8,>,by_kind:<Kind|One|Two|,u8,>,result:Result<T, E>|Ok(u8,)|Err(string,)|,}";

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Dot),
        (-1e9f32..1e9).prop_map(Shape::Circle),
        any::<(u8, u8)>().prop_map(|(a, b)| Shape::Line(a, b)),
        any::<(String, Option<u32>)>().prop_map(|(text, size)| Shape::Label { text, size }),
    ]
}

prop_compose! {
    fn all()(
        flag: bool, small: (u8, i8), middle: (u16, i16, u32, i32), large: (u64, i64, u128, i128),
        float in prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL,
        short in prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL,
        (letter, text) in any::<(char, String)>(), bytes: Vec<u8>, maybe: Option<String>,
        list in prop::collection::vec(shape(), 0..5), by_name: BTreeMap<String, Option<u64>>,
        (by_number, by_letter) in any::<(BTreeMap<i16, bool>, BTreeMap<char, u8>)>(), by_kind: Option<u8>, result: Result<u8, String>,
    ) -> All {
        let by_kind = by_kind.into_iter().map(|n| (if n > 9 { Kind::One } else { Kind::Two }, n)).collect();
        All {
            flag, small, middle, large, float, short, letter, text, bytes, nothing: (), unit: Nothing,
            maybe: maybe.map(Wrapped), list, by_name, by_number, by_letter, by_kind, result,
        }
    }
}

/// A service whose messages have these layouts.
fn inbox(messages: &[(&str, &str)]) -> Inbox {
    let shape =
        |(name, text): &(&str, &str)| MessageShape { name: (*name).to_owned(), hash: fnv1a(text.as_bytes()) };
    Inbox::of(&Manifest {
        format: 1,
        settings: None,
        state: None,
        contract: Contract(messages.iter().map(shape).collect()),
        layouts: messages.iter().map(|(_, text)| Some((*text).to_owned())).collect(),
    })
}

fn message(text: &str) -> Message {
    inbox(&[("M", text)]).named("M").unwrap().unwrap().clone()
}

fn text_of(ty: &Type, bytes: &[u8]) -> Result<String, Unreadable> {
    let mut reader = Reader::new(bytes);
    reader.value(ty)?;
    reader.end()
}

/// What is wrong with this message, in words.
fn wrong(layout: &str, json: &str) -> String {
    inbox(&[("Add", layout), ("Total", "->u64")]).encode(json).unwrap_err().to_string()
}

proptest! {
    #[test]
    fn json_and_bytes_are_those_of_serde(value in all()) {
        let message = inbox(&[("Put", &format!("value:{ALL},"))]);
        let json = serde_json::to_string(&value).unwrap();
        let mut bytes = vec![0];
        bytes.extend(postcard::to_stdvec(&value).unwrap());
        let wrapped = format!("{{\"Put\":{{\"value\":{json}}}}}");
        prop_assert_eq!(message.encode(&wrapped).unwrap().payload, bytes.clone());
        prop_assert_eq!(message.decode(&bytes).unwrap().unwrap(), wrapped);
    }

    #[test]
    fn no_bytes_make_it_panic_or_take_more_than_its_bound(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let ty = parse::ty(ALL).unwrap();
        if let Ok(text) = text_of(&ty, &bytes) {
            prop_assert!(text.len() <= MAX_MESSAGE_TEXT);
            serde_json::from_str::<serde::de::IgnoredAny>(&text).unwrap();
        }
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "[a-zA|:,?()<>{}\\[\\]=-]{0,60}") {
        let _ = parse::ty(&text);
        let _ = parse::message(&text);
    }

    #[test]
    fn a_spoiled_layout_is_refused_or_used_without_a_panic(
        at in 0..ALL.len(), with in "[a-z|:,?()<>{}]", bytes in prop::collection::vec(any::<u8>(), 0..100)
    ) {
        let spoiled = format!("{}{with}{}", &ALL[..at], &ALL[at + 1..]);
        if let Ok(ty) = parse::ty(&spoiled) {
            let held = Fields::Positional(vec![ty.clone()]);
            let mut example = String::new();
            example::variant("M", &held, &mut example);
            let _ = to_bytes::fields(&held, Some(to_bytes::parse(&example).unwrap()), &mut Vec::new());
            let _ = text_of(&ty, &bytes);
        }
    }
}

#[test]
fn an_example_is_a_message() {
    let inbox =
        inbox(&[("Put", &format!("value:{ALL},")), ("Total", "->u64"), ("Pair", "0:u8,2:<(u8,u8,),u8,>,")]);
    for (name, message) in inbox.messages() {
        let example = message.unwrap().example();
        let encoded = inbox.encode(&example).unwrap_or_else(|error| panic!("{name}: {example}: {error}"));
        assert_eq!(encoded.name, name);
        let shown = inbox.decode(&encoded.payload).unwrap().unwrap();
        assert_eq!(inbox.encode(&shown).unwrap(), encoded, "{shown}");
    }
    assert_eq!(inbox.named("Total").unwrap().unwrap().example(), "\"Total\"");
    assert_eq!(inbox.named("Pair").unwrap().unwrap().example(), r#"{"Pair": [1, [[[1, 1], 1]]]}"#);
    assert_eq!(inbox.named("Pair").unwrap().unwrap().to_string(), "Pair(u8, Map<(u8, u8), u8>)");
}

#[test]
fn a_message_without_fields_is_its_name_an_empty_object_or_null() {
    let inbox = inbox(&[("Add", "n:u32,"), ("Total", "=>u64")]);
    for json in [r#""Total""#, r#"{"Total": {}}"#, r#" { "Total" : null } "#] {
        let encoded = inbox.encode(json).unwrap();
        assert_eq!((&encoded.payload[..], encoded.asks), (&[1][..], Some(Asks::UntilAnswered)), "{json}");
        assert_eq!(encoded.contract.0.len(), 2);
    }
    assert_eq!(inbox.encode(r#"{"Add": {"n": 3}}"#).unwrap().contract.0.len(), 1);
    assert_eq!(inbox.named("Total").unwrap().unwrap().decode_reply(&[0xac, 0x02]).unwrap(), "300");
}

#[test]
fn an_error_says_where_what_and_what_was_expected() {
    let points = "points:[Point{x:i32,y:?u8,},],";
    let said = [
        wrong("n:u32,", "{"),
        wrong("n:u32,", "7"),
        wrong("n:u32,", r#"{"Ad": {"n": 1}}"#),
        wrong("n:u32,", r#""Add""#),
        wrong("n:u32,", r#"{"Add": {"m": 1}}"#),
        wrong("n:u32,", r#"{"Add": {}}"#),
        wrong("n:u32,", r#"{"Add": {"n": 1, "n": 2}}"#),
        wrong("n:u32,", r#"{"Add": {"n": 4294967296}}"#),
        wrong("n:u32,", r#"{"Add": {"n": 1.5}}"#),
        wrong("n:u32,", r#"{"Total": 1}"#),
        wrong("n:f32,", r#"{"Add": {"n": 1e39}}"#),
        wrong("n:char,", r#"{"Add": {"n": "ab"}}"#),
        wrong(points, r#"{"Add": {"points": [{"x": 1}, {"x": "one"}]}}"#),
        wrong(points, r#"{"Add": {"points": [{"x": 1, "y": 256}]}}"#),
        wrong("0:u8,1:u8,", r#"{"Add": [1]}"#),
        wrong("0:u8,1:u8,", r#"{"Add": [1, 2, 3]}"#),
        wrong("m:<u8,bool,>,", r#"{"Add": {"m": {"300": true}}}"#),
        wrong("m:<u8,bool,>,", r#"{"Add": {"m": {"3": 1}}}"#),
        wrong("k:Kind|One|Two|,", r#"{"Add": {"k": "Three"}}"#),
        wrong("k:Never|,", r#"{"Add": {"k": "One"}}"#),
    ];
    let expected = "\
no JSON: EOF while parsing an object at line 1 column 1
7, expected a message: Add, Total
there is no message `Ad`
Add: what it holds is missing, expected an object of n
Add: there is no field `m`
Add: n is missing, expected an integer 0 to 4294967295
Add: `n` is given twice
Add.n: 4294967296, expected an integer 0 to 4294967295
Add.n: 1.5, expected an integer 0 to 4294967295
Total: 1, expected nothing, as null
Add.n: 1e39, expected a number
Add.n: \"ab\", expected a string of one character
Add.points[1].x: \"one\", expected an integer -2147483648 to 2147483647
Add.points[0].y: 256, expected an integer 0 to 255
Add: [1], expected a list of 2 values
Add[2]: 3, expected the end of the list
Add.m.300: 300, expected an integer 0 to 255
Add.m.3: 1, expected true or false
Add.k: there is no variant `Three`
Add.k: nothing can be of type Never, which has no variant";
    assert_eq!(said.join("\n"), expected);
}

#[test]
fn bytes_that_are_none_say_where() {
    let inbox = inbox(&[("Add", "points:[Point{x:i32,y:?u8,},],")]);
    let said = |bytes: &[u8]| inbox.decode(bytes).unwrap_err().to_string();
    assert_eq!(inbox.decode(&[0, 1, 3, 1, 9]).unwrap().unwrap(), r#"{"Add":{"points":[{"x":-2,"y":9}]}}"#);
    assert!(said(&[]).starts_with("byte 0 is no message: "));
    assert!(said(&[1]).starts_with("byte 0 is no message: "));
    assert!(said(&[0, 2, 3, 0]).starts_with("Add.points[1].x: byte 4 is no i32: "));
    assert!(said(&[0, 1, 3, 2]).starts_with("Add.points[0].y: byte 3 is no option: "));
    assert_eq!(said(&[0, 0, 7]), "1 bytes behind it");
}

#[test]
fn a_list_without_end_ends_at_the_bound() {
    // A program's layout may say what its SDK would not compile.
    let ty = parse::ty("[unit,]").unwrap();
    let endless = postcard::to_stdvec(&usize::MAX).unwrap();
    assert_eq!(text_of(&ty, &endless), Err(Unreadable::Long));
}

#[test]
fn a_type_that_contains_itself_or_many_others_is_refused() {
    let deep = "?".repeat(MAX_LAYOUT_DEPTH) + "u8";
    assert_eq!(parse::ty(&deep), Err(ParseError::Deep));
    assert!(parse::ty(&deep[1..]).is_ok());
    let long = format!("({})", "u8,".repeat(MAX_LAYOUT / 3));
    assert_eq!(parse::ty(&long), Err(ParseError::Long { length: long.len() }));
}

#[test]
fn a_message_without_its_layout_says_why() {
    let told = |layouts: Vec<Option<String>>| {
        let shape = |name: &str, text: &str| MessageShape { name: name.into(), hash: fnv1a(text.as_bytes()) };
        let contract = Contract(vec![shape("Add", "n:u32,"), shape("Total", "->schema")]);
        Inbox::of(&Manifest { format: 1, settings: None, state: None, contract, layouts })
    };
    let why = |inbox: &Inbox, name: &str| inbox.named(name).unwrap().unwrap_err().clone();
    assert_eq!(why(&told(vec![]), "Add"), NoLayout::Untold);
    assert_eq!(why(&told(vec![None, None]), "Add"), NoLayout::Long);
    assert_eq!(why(&told(vec![Some("n:u64,".into())]), "Add"), NoLayout::Another);
    let odd = told(vec![Some("n:u32,".into()), Some("->schema".into())]);
    assert_eq!(why(&odd, "Total"), NoLayout::Unreadable(ParseError::Schema));
    assert!(odd.encode(r#"{"Add": {"n": 1}}"#).is_ok(), "the others are known");
    assert!(matches!(odd.encode(r#""Total""#), Err(Unsent::NoLayout { name, .. }) if name == "Total"));
    assert_eq!(odd.decode(&[1]).unwrap(), Err(&NoLayout::Unreadable(ParseError::Schema)));
}

#[test]
fn more_layouts_than_an_sdk_tells_are_not_read() {
    let text = format!("n:({}),", "u8,".repeat(MAX_LAYOUT / 3 - 10));
    let inbox = inbox(&[("A", &text), ("B", &text), ("C", &text), ("D", &text), ("E", &text)]);
    let known: Vec<bool> = inbox.messages().map(|(_, message)| message.is_ok()).collect();
    assert_eq!(known, [true, true, true, true, false]);
    assert_eq!(inbox.named("E").unwrap(), Err(&NoLayout::Long));
}

#[test]
fn the_first_difference_is_named() {
    let said = |before: &str, now: &str| {
        difference(&message(before), &message(now))
            .map_or_else(String::new, |difference| difference.to_string())
    };
    for (before, now, expected) in [
        ("n:u32,", "n:u32,", ""),
        ("n:u32,", "n:u64,", "n was u32 and is u64"),
        ("n:u32,", "n:u32,m:?u8,", "m is new"),
        ("n:u32,m:u8,", "m:u8,", "n is gone"),
        ("n:u32,m:u8,", "m:u8,n:u32,", "m has another place"),
        ("", "n:u32,", "n is new"),
        ("n:[Point{x:i32,y:u8,},],", "n:[Point{x:i32,y:?u8,},],", "n[].y was u8 and is Option<u8>"),
        ("k:Kind|One|Two|,", "k:Kind|One|Three|Two|,", "k.Three is new"),
        ("k:Kind|One|Two(u8,)|,", "k:Kind|One|Two(u16,)|,", "k.Two[0] was u8 and is u16"),
        ("0:u8,", "0:u8,1:(u8,),", "[1] is new"),
        ("->u32", "->u64", "reply was u32 and is u64"),
        ("->u32", "=>u32", "was asked, at most once and is asked, until it is answered"),
        ("->u32", "", "was asked, at most once and is told"),
        ("p:Point{x:u8,},", "p:Place{x:u8,},", "p was Point and is Place"),
    ] {
        assert_eq!(said(before, now), expected, "{before} → {now}");
    }
}
