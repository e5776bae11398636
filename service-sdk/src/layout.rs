//! The postcard layout of a type as text, which a contract's hash is taken of.
//!
//! The text is ours and not the schema crate's own form, so that a new version of that crate does not tell
//! two services of one contract apart.

use postcard_schema::schema::{DataModelType as Type, DataModelVariant as Variant, NamedType, NamedValue};

/// Appends `ty`: names of structs, enums, fields and variants, their order, and what they hold.
pub(crate) fn describe(ty: &NamedType, out: &mut String) {
    let plain = match ty.ty {
        Type::Bool => "bool",
        Type::I8 => "i8",
        Type::U8 => "u8",
        Type::I16 => "i16",
        Type::I32 => "i32",
        Type::I64 => "i64",
        Type::I128 => "i128",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::U128 => "u128",
        Type::Usize => "usize",
        Type::Isize => "isize",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ByteArray => "bytes",
        Type::Unit => "unit",
        Type::Schema => "schema",
        Type::UnitStruct => {
            out.push_str(ty.name);
            return;
        }
        Type::NewtypeStruct(inner) => {
            out.push_str(ty.name);
            return list(&[inner], "()", out);
        }
        Type::TupleStruct(inner) => {
            out.push_str(ty.name);
            return list(inner, "()", out);
        }
        Type::Struct(inner) => {
            out.push_str(ty.name);
            return fields(inner, out);
        }
        Type::Option(inner) => {
            out.push('?');
            return describe(inner, out);
        }
        Type::Seq(inner) => return list(&[inner], "[]", out),
        Type::Map { key, val } => return list(&[key, val], "<>", out),
        Type::Tuple(inner) => return list(inner, "()", out),
        Type::Enum(variants) => {
            out.push_str(ty.name);
            out.push('|');
            for variant in *variants {
                out.push_str(variant.name);
                match variant.ty {
                    Variant::UnitVariant => {}
                    Variant::NewtypeVariant(inner) => list(&[inner], "()", out),
                    Variant::TupleVariant(inner) => list(inner, "()", out),
                    Variant::StructVariant(inner) => fields(inner, out),
                }
                out.push('|');
            }
            return;
        }
    };
    out.push_str(plain);
}

fn list(types: &[&NamedType], brackets: &str, out: &mut String) {
    let (open, close) = brackets.split_at(1);
    out.push_str(open);
    for ty in types {
        describe(ty, out);
        out.push(',');
    }
    out.push_str(close);
}

fn fields(values: &[&NamedValue], out: &mut String) {
    out.push('{');
    for value in values {
        out.push_str(value.name);
        out.push(':');
        describe(value.ty, out);
        out.push(',');
    }
    out.push('}');
}

/// Stops the compiler at a type that a few hostile bytes could make a receiver build without end: a list whose
/// elements take no bytes has no bound in its packet.
pub(crate) const fn checked(ty: &'static NamedType) -> &'static NamedType {
    assert!(
        lists_are_bounded(ty),
        "a list or map of elements without bytes, as Vec<()>, can't be part of a message: nothing bounds its length"
    );
    ty
}

const fn lists_are_bounded(ty: &NamedType) -> bool {
    match ty.ty {
        Type::Seq(inner) => takes_bytes(inner) && lists_are_bounded(inner),
        Type::Map { key, val } => {
            (takes_bytes(key) || takes_bytes(val)) && lists_are_bounded(key) && lists_are_bounded(val)
        }
        Type::Option(inner) | Type::NewtypeStruct(inner) => lists_are_bounded(inner),
        Type::Tuple(inner) | Type::TupleStruct(inner) => all_bounded(inner),
        Type::Struct(inner) => fields_bounded(inner),
        Type::Enum(variants) => {
            let mut at = 0;
            while at < variants.len() {
                let bounded = match variants[at].ty {
                    Variant::UnitVariant => true,
                    Variant::NewtypeVariant(inner) => lists_are_bounded(inner),
                    Variant::TupleVariant(inner) => all_bounded(inner),
                    Variant::StructVariant(inner) => fields_bounded(inner),
                };
                if !bounded {
                    return false;
                }
                at += 1;
            }
            true
        }
        _ => true,
    }
}

const fn all_bounded(types: &[&NamedType]) -> bool {
    let mut at = 0;
    while at < types.len() {
        if !lists_are_bounded(types[at]) {
            return false;
        }
        at += 1;
    }
    true
}

const fn fields_bounded(values: &[&NamedValue]) -> bool {
    let mut at = 0;
    while at < values.len() {
        if !lists_are_bounded(values[at].ty) {
            return false;
        }
        at += 1;
    }
    true
}

const fn takes_bytes(ty: &NamedType) -> bool {
    match ty.ty {
        Type::Unit | Type::UnitStruct => false,
        Type::NewtypeStruct(inner) => takes_bytes(inner),
        Type::Tuple(inner) | Type::TupleStruct(inner) => {
            let mut at = 0;
            while at < inner.len() {
                if takes_bytes(inner[at]) {
                    return true;
                }
                at += 1;
            }
            false
        }
        Type::Struct(inner) => {
            let mut at = 0;
            while at < inner.len() {
                if takes_bytes(inner[at].ty) {
                    return true;
                }
                at += 1;
            }
            false
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use postcard_schema::Schema;
    use serde::Serialize;
    use watchdog_protocol::layout::Inbox;
    use watchdog_protocol::manifest::{Contract, Manifest, MessageShape, fnv1a};

    use super::*;

    fn text<T: Schema>() -> String {
        let mut out = String::new();
        describe(T::SCHEMA, &mut out);
        out
    }

    #[derive(Schema)]
    struct Point {
        _x: i32,
        _y: Option<u8>,
    }

    #[derive(Schema)]
    enum Shape {
        _Dot,
        _Line(Point, Point),
        _Label { _text: String },
    }

    #[test]
    fn a_layout_is_this_text_for_ever() {
        assert_eq!(text::<Point>(), "Point{_x:i32,_y:?u8,}");
        assert_eq!(
            text::<BTreeMap<u64, Vec<Shape>>>(),
            "<u64,[Shape|_Dot|_Line(Point{_x:i32,_y:?u8,},Point{_x:i32,_y:?u8,},)|_Label{_text:string,}|,],>"
        );
        assert_eq!(text::<(bool, [f32; 2])>(), "(bool,(f32,f32,),)");
    }

    #[derive(Serialize, Schema)]
    struct Nothing;

    #[derive(Serialize, Schema)]
    struct Wrapped(u64);

    #[derive(Serialize, Schema)]
    struct Pair(i8, char);

    #[derive(Serialize, Schema)]
    enum Kind {
        Bare,
        Wrapping(Wrapped),
        Both(u8, Option<bool>),
        Named { r#type: String, sizes: Vec<u64> },
    }

    /// What the watchdog reads of the text are the bytes of the type, and the JSON that serde makes of it.
    fn is_read<T: Schema + Serialize>(value: &T) {
        let layout = format!("0:{},", text::<T>());
        let shape = MessageShape { name: "M".into(), hash: fnv1a(layout.as_bytes()) };
        let (contract, layouts) = (Contract(vec![shape]), vec![Some(layout.clone())]);
        let inbox = Inbox::of(&Manifest { format: 1, settings: None, state: None, contract, layouts });
        let json = format!("{{\"M\":{}}}", serde_json::to_string(value).unwrap());
        let bytes = [vec![0], postcard::to_stdvec(value).unwrap()].concat();
        assert_eq!(inbox.encode(&json).unwrap().payload, bytes, "{layout}: {json}");
        assert_eq!(inbox.decode(&bytes).unwrap().unwrap(), json, "{layout}");
    }

    #[test]
    fn a_layout_is_read_as_what_it_is_written_of() {
        is_read(&(true, i128::MIN, u128::MAX, (), Nothing, Wrapped(300)));
        is_read(&vec![
            Kind::Bare,
            Kind::Wrapping(Wrapped(u64::MAX)),
            Kind::Both(7, Some(false)),
            Kind::Named { r#type: "\"{<|,:é".into(), sizes: vec![0, u64::MAX] },
        ]);
        is_read(&BTreeMap::from([(1u8, [Pair(-1, 'é'), Pair(i8::MIN, '"')])]));
        is_read(&(Ok::<u8, String>(3), Err::<u8, String>("no".into()), Some(1.5f32), None::<f64>));
        is_read(&(std::time::Duration::from_millis(1500), 3u16..7, std::num::NonZeroI32::MIN));
    }

    #[test]
    fn only_a_list_of_elements_without_bytes_has_no_bound() {
        assert!(lists_are_bounded(<Vec<BTreeMap<u8, ()>> as Schema>::SCHEMA));
        assert!(lists_are_bounded(<[(); 3] as Schema>::SCHEMA));
        assert!(!lists_are_bounded(<Vec<()> as Schema>::SCHEMA));
        assert!(!lists_are_bounded(<Option<(u8, Vec<[((), ()); 2]>)> as Schema>::SCHEMA));
        assert!(!lists_are_bounded(<BTreeMap<(), ()> as Schema>::SCHEMA));
    }
}
