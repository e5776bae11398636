//! The first place where two layouts of a message part.

use std::fmt;

use super::path::{Path, Step};
use super::{Asks, Field, Fields, Message, Type, Variant};

/// Where a newer layout is another one than an older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: Path,
    /// What became of it.
    pub change: Change,
}

/// What became of a field, variant or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another place among its like.
    Moved,
    /// It is something else.
    Became {
        /// What it was.
        before: String,
        /// What it is.
        now: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(out, "{} ", self.path)?;
        }
        match &self.change {
            Change::Added => out.write_str("is new"),
            Change::Removed => out.write_str("is gone"),
            Change::Moved => out.write_str("has another place"),
            Change::Became { before, now } => write!(out, "was {before} and is {now}"),
        }
    }
}

/// `None`: they are the same.
pub fn difference(before: &Message, now: &Message) -> Option<Difference> {
    fields(&before.fields, &now.fields).or_else(|| {
        let answered = |message: &Message| match message.reply {
            None => "told",
            Some((Asks::Once, _)) => "asked, at most once",
            Some((Asks::UntilAnswered, _)) => "asked, until it is answered",
        };
        let (was, is) = (answered(before), answered(now));
        if was != is {
            return Some(became(was, is));
        }
        let ((_, before), (_, now)) = before.reply.as_ref().zip(now.reply.as_ref())?;
        Some(within(ty(before, now)?, || Step::Name("reply".to_owned())))
    })
}

fn here(change: Change) -> Difference {
    Difference { path: Path::default(), change }
}

fn became(before: impl fmt::Display, now: impl fmt::Display) -> Difference {
    here(Change::Became { before: before.to_string(), now: now.to_string() })
}

fn within(mut difference: Difference, step: impl FnOnce() -> Step) -> Difference {
    difference.path.push_front(step());
    difference
}

fn ty(before: &Type, now: &Type) -> Option<Difference> {
    let parts = match (before, now) {
        _ if before == now => return None,
        (Type::Option(before), Type::Option(now)) => ty(before, now),
        (Type::Seq(before), Type::Seq(now)) => Some(within(ty(before, now)?, || Step::Each)),
        (Type::Map(before), Type::Map(now)) => {
            let key = ty(&before.0, &now.0).map(|key| within(key, || Step::Name("key".to_owned())));
            key.or_else(|| Some(within(ty(&before.1, &now.1)?, || Step::Each)))
        }
        (Type::Tuple(before), Type::Tuple(now)) => positions(before, now),
        (Type::Struct { name, fields: before }, Type::Struct { name: new, fields: now }) if name == new => {
            fields(before, now)
        }
        (Type::Enum { name, variants: before }, Type::Enum { name: new, variants: now }) if name == new => {
            let named = |variant: &Variant| variant.name.clone();
            by_name(before, now, &named, &|before, now| fields(&before.fields, &now.fields))
        }
        _ => None,
    };
    Some(parts.unwrap_or_else(|| became(before, now)))
}

fn fields(before: &Fields, now: &Fields) -> Option<Difference> {
    match (before, now) {
        (Fields::None, Fields::None) => None,
        (Fields::Positional(before), Fields::Positional(now)) => positions(before, now),
        (Fields::Named(before), Fields::Named(now)) => {
            by_name(before, now, &|field: &Field| field.name.clone(), &|before, now| ty(&before.ty, &now.ty))
        }
        (Fields::None, Fields::Named(now)) => {
            by_name(&[], now, &|field: &Field| field.name.clone(), &|_, _| None)
        }
        (Fields::Named(before), Fields::None) => {
            by_name(before, &[], &|field: &Field| field.name.clone(), &|_, _| None)
        }
        (Fields::None, Fields::Positional(now)) => positions(&[], now),
        (Fields::Positional(before), Fields::None) => positions(before, &[]),
        (Fields::Positional(_), Fields::Named(_)) | (Fields::Named(_), Fields::Positional(_)) => {
            Some(became(before, now))
        }
    }
}

fn positions(before: &[Type], now: &[Type]) -> Option<Difference> {
    let parted = before
        .iter()
        .zip(now)
        .enumerate()
        .find_map(|(at, (before, now))| Some(within(ty(before, now)?, || Step::Index(at))));
    let step = |at| move || Step::Index(at);
    parted.or_else(|| match (before.len(), now.len()) {
        (was, is) if was < is => Some(within(here(Change::Added), step(was))),
        (was, is) if was > is => Some(within(here(Change::Removed), step(is))),
        _ => None,
    })
}

fn by_name<T>(
    before: &[T],
    now: &[T],
    name: &dyn Fn(&T) -> String,
    parts: &dyn Fn(&T, &T) -> Option<Difference>,
) -> Option<Difference> {
    let is_in = |wanted: &str, list: &[T]| list.iter().any(|it| name(it) == wanted);
    for at in 0..before.len().max(now.len()) {
        let (was, is) = (before.get(at), now.get(at));
        let (of, difference) = match (was, is) {
            (Some(was), Some(is)) if name(was) == name(is) => {
                let Some(difference) = parts(was, is) else { continue };
                (was, difference)
            }
            (Some(was), _) if !is_in(&name(was), now) => (was, here(Change::Removed)),
            (_, Some(is)) if !is_in(&name(is), before) => (is, here(Change::Added)),
            (_, Some(is)) => (is, here(Change::Moved)),
            (Some(was), None) => (was, here(Change::Moved)),
            (None, None) => return None,
        };
        return Some(within(difference, || Step::Name(name(of))));
    }
    None
}

impl fmt::Display for Type {
    /// As Rust writes it, or nearly.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => out.write_str("bool"),
            Self::Int(int) => out.write_str(int.name()),
            Self::F32 => out.write_str("f32"),
            Self::F64 => out.write_str("f64"),
            Self::Char => out.write_str("char"),
            Self::String => out.write_str("String"),
            Self::Bytes => out.write_str("bytes"),
            Self::Unit => out.write_str("()"),
            Self::Option(inner) => write!(out, "Option<{inner}>"),
            Self::Seq(inner) => write!(out, "Vec<{inner}>"),
            Self::Map(both) => write!(out, "Map<{}, {}>", both.0, both.1),
            Self::Tuple(types) => listed(types, out),
            Self::Struct { name, .. } | Self::Enum { name, .. } => out.write_str(name),
        }
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Positional(types) => listed(types, out),
            Self::Named(named) => {
                for (at, Field { name, ty }) in named.iter().enumerate() {
                    write!(out, "{}{name}: {ty}", if at == 0 { " { " } else { ", " })?;
                }
                out.write_str(" }")
            }
        }
    }
}

fn listed(types: &[Type], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, ty) in types.iter().enumerate() {
        write!(out, "{}{ty}", if at == 0 { "(" } else { ", " })?;
    }
    out.write_str(if types.is_empty() { "()" } else { ")" })
}
