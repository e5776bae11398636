//! A value of a type, in JSON: what somebody who never saw the type starts from.

use super::to_bytes::is_plain;
use super::{Field, Fields, Type, Variant};

/// A variant with what it holds.
pub(super) fn variant(name: &str, held: &Fields, out: &mut String) {
    if *held == Fields::None {
        return quoted(name, out);
    }
    out.push('{');
    quoted(name, out);
    out.push_str(": ");
    fields(held, out);
    out.push('}');
}

fn fields(held: &Fields, out: &mut String) {
    match held {
        Fields::None => out.push_str("null"),
        Fields::Positional(types) => match &types[..] {
            [only] => value(only, out),
            types => tuple(types, out),
        },
        Fields::Named(named) => {
            out.push('{');
            for (at, Field { name, ty }) in named.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                quoted(name, out);
                out.push_str(": ");
                value(ty, out);
            }
            out.push('}');
        }
    }
}

fn value(ty: &Type, out: &mut String) {
    match ty {
        Type::Bool => out.push_str("true"),
        Type::Int(_) => out.push('1'),
        Type::F32 | Type::F64 => out.push_str("1.5"),
        Type::Char => out.push_str("\"c\""),
        Type::String => out.push_str("\"text\""),
        Type::Bytes => out.push_str("[1]"),
        Type::Unit => out.push_str("null"),
        Type::Option(inner) => value(inner, out),
        Type::Seq(inner) => tuple(std::slice::from_ref(inner), out),
        Type::Map(both) if is_plain(&both.0) => {
            let mut key = String::new();
            value(&both.0, &mut key);
            out.push('{');
            if key.starts_with('"') {
                out.push_str(&key);
            } else {
                quoted(&key, out);
            }
            out.push_str(": ");
            value(&both.1, out);
            out.push('}');
        }
        Type::Map(both) => {
            out.push_str("[[");
            value(&both.0, out);
            out.push_str(", ");
            value(&both.1, out);
            out.push_str("]]");
        }
        Type::Tuple(types) => tuple(types, out),
        Type::Struct { fields: held, .. } => fields(held, out),
        Type::Enum { variants, .. } => match variants.first() {
            Some(Variant { name, fields }) => variant(name, fields, out),
            // Nothing can be it.
            None => out.push_str("null"),
        },
    }
}

fn tuple(types: &[Type], out: &mut String) {
    out.push('[');
    for (at, ty) in types.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { ", " });
        value(ty, out);
    }
    out.push(']');
}

fn quoted(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("every text has a form in JSON"));
}
