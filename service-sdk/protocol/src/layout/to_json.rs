//! Postcard → JSON.

use serde::Deserialize;

use super::path::{Path, Step};
use super::to_bytes::is_plain;
use super::{Field, Fields, Int, Type, Variant};
use crate::limits::MAX_MESSAGE_TEXT;

/// Bytes that are not what the layout says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They end too early, or hold what the type can't.
    #[error("{}byte {at} is no {ty}: {reason}", if .path.is_empty() { String::new() } else { format!("{}: ", .path) })]
    Value {
        /// Where in the message.
        path: Path,
        /// Where in the bytes.
        at: usize,
        /// What should be there.
        ty: &'static str,
        /// In postcard's words.
        reason: postcard::Error,
    },
    /// More behind the message.
    #[error("{extra} bytes behind it")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// More text than is ever shown: bytes that say they are a list without end.
    #[error("as JSON it is longer than {MAX_MESSAGE_TEXT} bytes")]
    Long,
}

impl Unreadable {
    pub(super) fn at(mut self, step: impl FnOnce() -> Step) -> Self {
        if let Self::Value { path, .. } = &mut self {
            path.push_front(step());
        }
        self
    }
}

pub(super) fn take<'b, T: Deserialize<'b>>(rest: &mut &'b [u8]) -> postcard::Result<T> {
    let (value, behind) = postcard::take_from_bytes(rest)?;
    *rest = behind;
    Ok(value)
}

/// Bytes that are read, and the text they become.
pub(super) struct Reader<'b> {
    whole: usize,
    rest: &'b [u8],
    out: String,
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { whole: bytes.len(), rest: bytes, out: String::new() }
    }

    pub(super) fn end(self) -> Result<String, Unreadable> {
        if self.rest.is_empty() { Ok(self.out) } else { Err(Unreadable::Trailing { extra: self.rest.len() }) }
    }

    /// Which of several.
    pub(super) fn number(&mut self, ty: &'static str, of: usize) -> Result<usize, Unreadable> {
        let before = self.rest;
        let number = self.take::<u32>(ty)?;
        usize::try_from(number).ok().filter(|number| *number < of).ok_or_else(|| {
            self.rest = before;
            self.unreadable(ty, postcard::Error::DeserializeBadEnum)
        })
    }

    fn unreadable(&self, ty: &'static str, reason: postcard::Error) -> Unreadable {
        Unreadable::Value { path: Path::default(), at: self.whole - self.rest.len(), ty, reason }
    }

    fn take<T: Deserialize<'b>>(&mut self, ty: &'static str) -> Result<T, Unreadable> {
        take(&mut self.rest).map_err(|reason| self.unreadable(ty, reason))
    }

    fn put(&mut self, text: &str) -> Result<(), Unreadable> {
        if self.out.len() + text.len() > MAX_MESSAGE_TEXT {
            return Err(Unreadable::Long);
        }
        self.out.push_str(text);
        Ok(())
    }

    fn quoted(&mut self, text: &str) -> Result<(), Unreadable> {
        self.put(&serde_json::to_string(text).expect("every text has a form in JSON"))
    }

    /// A variant with what it holds.
    pub(super) fn variant(&mut self, name: &str, fields: &Fields) -> Result<(), Unreadable> {
        if *fields == Fields::None {
            return self.quoted(name);
        }
        self.put("{")?;
        self.quoted(name)?;
        self.put(":")?;
        self.fields(fields).map_err(|unreadable| unreadable.at(|| Step::Name(name.to_owned())))?;
        self.put("}")
    }

    fn fields(&mut self, fields: &Fields) -> Result<(), Unreadable> {
        match fields {
            Fields::None => self.put("null"),
            Fields::Positional(types) => match &types[..] {
                [only] => self.value(only),
                types => self.tuple(types),
            },
            Fields::Named(named) => self.object(named),
        }
    }

    pub(super) fn value(&mut self, ty: &Type) -> Result<(), Unreadable> {
        match ty {
            Type::Bool | Type::Int(_) | Type::F32 | Type::F64 => {
                let text = self.plain(ty)?;
                self.put(&text)
            }
            Type::Char | Type::String => {
                let text = self.plain(ty)?;
                self.quoted(&text)
            }
            Type::Bytes => self.list(&Type::Int(Int::U8)),
            Type::Unit => self.put("null"),
            Type::Option(inner) => {
                if self.is_some()? {
                    self.value(inner)
                } else {
                    self.put("null")
                }
            }
            Type::Seq(inner) => self.list(inner),
            Type::Map(both) => self.map(&both.0, &both.1),
            Type::Tuple(types) => self.tuple(types),
            Type::Struct { fields, .. } => self.fields(fields),
            Type::Enum { variants, .. } => {
                let chosen = self.chosen(variants)?;
                self.variant(&chosen.name, &chosen.fields)
            }
        }
    }

    fn chosen<'t>(&mut self, variants: &'t [Variant]) -> Result<&'t Variant, Unreadable> {
        Ok(&variants[self.number("variant", variants.len())?])
    }

    fn is_some(&mut self) -> Result<bool, Unreadable> {
        let before = self.rest;
        match self.take::<u8>("option")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => {
                self.rest = before;
                Err(self.unreadable("option", postcard::Error::DeserializeBadOption))
            }
        }
    }

    /// A value that JSON can have as a key, too.
    fn plain(&mut self, ty: &Type) -> Result<String, Unreadable> {
        // As serde_json has it, which JSON knows nothing better for.
        let float = |text: Result<String, serde_json::Error>| text.expect("a number has a form in JSON");
        Ok(match ty {
            Type::Bool => self.take::<bool>("bool")?.to_string(),
            Type::Int(int) => {
                int.take(&mut self.rest).map_err(|reason| self.unreadable(int.name(), reason))?
            }
            Type::F32 => float(serde_json::to_string(&self.take::<f32>("f32")?)),
            Type::F64 => float(serde_json::to_string(&self.take::<f64>("f64")?)),
            Type::Char => self.take::<char>("char")?.to_string(),
            Type::String => self.take::<&str>("string")?.to_owned(),
            Type::Struct { fields: Fields::Positional(types), .. } if types.len() == 1 => {
                self.plain(&types[0])?
            }
            Type::Enum { variants, .. } => self.chosen(variants)?.name.clone(),
            _ => unreachable!("no plain value: is_plain says so"),
        })
    }

    /// Between this and the end of the text each element has a character: a list without end has one, at its bound.
    fn each(
        &mut self,
        count: usize,
        brackets: [&str; 2],
        mut each: impl FnMut(&mut Self, usize) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        self.put(brackets[0])?;
        for at in 0..count {
            if at > 0 {
                self.put(",")?;
            }
            each(self, at)?;
        }
        self.put(brackets[1])
    }

    fn list(&mut self, of: &Type) -> Result<(), Unreadable> {
        let count = self.take::<usize>("list")?;
        self.each(count, ["[", "]"], |reader, at| {
            reader.value(of).map_err(|unreadable| unreadable.at(|| Step::Index(at)))
        })
    }

    fn tuple(&mut self, types: &[Type]) -> Result<(), Unreadable> {
        self.each(types.len(), ["[", "]"], |reader, at| {
            reader.value(&types[at]).map_err(|unreadable| unreadable.at(|| Step::Index(at)))
        })
    }

    fn object(&mut self, named: &[Field]) -> Result<(), Unreadable> {
        self.each(named.len(), ["{", "}"], |reader, at| {
            let Field { name, ty } = &named[at];
            reader.quoted(name)?;
            reader.put(":")?;
            reader.value(ty).map_err(|unreadable| unreadable.at(|| Step::Name(name.clone())))
        })
    }

    fn map(&mut self, key: &Type, of: &Type) -> Result<(), Unreadable> {
        let count = self.take::<usize>("map")?;
        if is_plain(key) {
            return self.each(count, ["{", "}"], |reader, at| {
                let name = reader.plain(key).map_err(|unreadable| unreadable.at(|| Step::Index(at)))?;
                reader.quoted(&name)?;
                reader.put(":")?;
                reader.value(of).map_err(|unreadable| unreadable.at(|| Step::Name(name)))
            });
        }
        self.each(count, ["[", "]"], |reader, at| {
            let pair =
                reader.each(
                    2,
                    ["[", "]"],
                    |reader, half| {
                        if half == 0 { reader.value(key) } else { reader.value(of) }
                    },
                );
            pair.map_err(|unreadable| unreadable.at(|| Step::Index(at)))
        })
    }
}
