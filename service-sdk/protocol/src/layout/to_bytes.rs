//! JSON → postcard.
//!
//! Values are looked at as text, one level at a time: a number keeps all its digits, and a list of a million takes no
//! memory but its bytes. Nothing is written unless all of it fits.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::path::{Path, Step};
use super::{Field, Fields, Int, Type, Variant};

/// Characters of a value that an error shows.
const SHOWN: usize = 40;

/// A value that is not what the layout says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", place(.path))]
pub struct Unfit {
    /// Where.
    pub path: Path,
    /// What is wrong there.
    pub problem: UnfitProblem,
}

fn place(path: &Path) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnfitProblem {
    /// Something else than what belongs there.
    #[error("{found}, expected {expected}")]
    Expected {
        /// What belongs there.
        expected: String,
        /// What is there, as it was given.
        found: String,
    },
    /// A field, variant or message that there is not.
    #[error("there is no {what} `{found}`")]
    Unknown {
        /// What kind of name.
        what: &'static str,
        /// As it was given.
        found: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A field without a value.
    #[error("{field} is missing, expected {expected}")]
    Missing {
        /// Its name.
        field: String,
        /// What belongs there.
        expected: String,
    },
    /// A name given a second time.
    #[error("`{name}` is given twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// An enum without variants.
    #[error("nothing can be of type {name}, which has no variant")]
    Never {
        /// The type's name.
        name: String,
    },
    /// No JSON at all.
    #[error("no JSON: {reason}")]
    Json {
        /// What is wrong with it, and where.
        reason: String,
    },
}

impl Unfit {
    pub(super) fn new(problem: UnfitProblem) -> Self {
        Self { path: Path::default(), problem }
    }

    pub(super) fn at(mut self, step: Step) -> Self {
        self.path.push_front(step);
        self
    }

    fn expected(expected: impl Into<String>, found: &str) -> Self {
        let mut shown: String = found.chars().take(SHOWN).collect();
        if shown.len() < found.len() {
            shown.push('…');
        }
        Self::new(UnfitProblem::Expected { expected: expected.into(), found: shown })
    }
}

pub(super) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    postcard::to_io(value, out).expect("a plain value has a form, and memory takes all");
}

fn append_count(count: usize, out: &mut Vec<u8>) {
    append(&count, out);
}

/// A text that is one JSON value.
pub(super) fn parse(text: &str) -> Result<&RawValue, Unfit> {
    serde_json::from_str(text).map_err(|error| Unfit::new(UnfitProblem::Json { reason: error.to_string() }))
}

/// A value that is one of several: its name, and what it holds.
pub(super) fn chosen<'v>(
    raw: &'v RawValue,
    expected: &dyn Fn() -> String,
) -> Result<(String, Option<&'v RawValue>), Unfit> {
    if raw.get().starts_with('"') {
        return Ok((string(raw)?, None));
    }
    let mut found = None;
    if raw.get().starts_with('{') {
        let mut count = 0;
        each_entry(raw, &mut |name, value| {
            count += 1;
            found = Some((name, Some(value)));
            Ok(())
        })?;
        if count != 1 {
            found = None;
        }
    }
    found.ok_or_else(|| Unfit::expected(expected(), raw.get()))
}

/// What a variant or struct holds.
pub(super) fn fields(fields: &Fields, raw: Option<&RawValue>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    match (fields, raw) {
        (Fields::None, None) => Ok(()),
        (Fields::None, Some(raw)) => match raw.get() {
            "null" => Ok(()),
            text if is_empty(text) => Ok(()),
            other => Err(Unfit::expected("nothing, as null", other)),
        },
        (_, None) => Err(Unfit::new(UnfitProblem::Missing {
            field: "what it holds".to_owned(),
            expected: expected_fields(fields),
        })),
        (Fields::Positional(types), Some(raw)) => match &types[..] {
            [only] => value(only, raw, out),
            types => tuple(types, raw, out),
        },
        (Fields::Named(named), Some(raw)) => object(named, raw, out),
    }
}

fn is_empty(text: &str) -> bool {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

fn value(ty: &Type, raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let text = raw.get();
    match ty {
        Type::String => append(&string(raw)?, out),
        Type::Char => plain(ty, &string(raw)?, text, out)?,
        Type::Bool | Type::Int(_) | Type::F32 | Type::F64 => plain(ty, text, text, out)?,
        Type::Unit if text == "null" => {}
        Type::Unit => return Err(Unfit::expected("null", text)),
        Type::Option(_) if text == "null" => out.push(0),
        Type::Option(inner) => {
            out.push(1);
            value(inner, raw, out)?;
        }
        Type::Bytes => list(&Type::Int(Int::U8), raw, out)?,
        Type::Seq(inner) => list(inner, raw, out)?,
        Type::Map(both) => map(&both.0, &both.1, raw, out)?,
        Type::Tuple(types) => tuple(types, raw, out)?,
        Type::Struct { fields: Fields::None, .. } if text == "null" => {}
        Type::Struct { fields: Fields::None, .. } => return Err(Unfit::expected("null", text)),
        Type::Struct { fields: held, .. } => fields(held, Some(raw), out)?,
        Type::Enum { name, variants } => {
            if variants.is_empty() {
                return Err(Unfit::new(UnfitProblem::Never { name: name.clone() }));
            }
            let (chosen, held) = chosen(raw, &|| expected(ty))?;
            variant(variants, &chosen, held, out)?;
        }
    }
    Ok(())
}

fn variant(
    variants: &[Variant],
    name: &str,
    held: Option<&RawValue>,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let Some(at) = variants.iter().position(|variant| variant.name == name) else {
        let known = variants.iter().map(|variant| variant.name.clone()).collect();
        return Err(Unfit::new(UnfitProblem::Unknown { what: "variant", found: name.to_owned(), known }));
    };
    append(&u32::try_from(at).expect("a layout's text is far shorter than 4 GiB"), out);
    fields(&variants[at].fields, held, out).map_err(|unfit| unfit.at(Step::Name(name.to_owned())))
}

/// A value that JSON can have as a key, too: `text` without quotes. `shown` is what was given.
fn plain(ty: &Type, text: &str, shown: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let unfit = || Unfit::expected(expected(ty), shown);
    match ty {
        Type::Bool => append(&text.parse::<bool>().map_err(|_| unfit())?, out),
        Type::Int(int) => int.append(text, out).ok_or_else(unfit)?,
        Type::F32 => append(&number(text, f32::is_finite).ok_or_else(unfit)?, out),
        Type::F64 => append(&number(text, f64::is_finite).ok_or_else(unfit)?, out),
        Type::Char => append(&text.parse::<char>().map_err(|_| unfit())?, out),
        Type::String => append(text, out),
        Type::Struct { fields: Fields::Positional(types), .. } if types.len() == 1 => {
            plain(&types[0], text, shown, out)?;
        }
        Type::Enum { variants, .. } => variant(variants, text, None, out)?,
        _ => unreachable!("no plain value: is_plain says so"),
    }
    Ok(())
}

/// Whether a value can be a key in JSON.
pub(super) fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Int(_) | Type::F32 | Type::F64 | Type::Char | Type::String => true,
        Type::Struct { fields: Fields::Positional(types), .. } => types.len() == 1 && is_plain(&types[0]),
        Type::Enum { variants, .. } => variants.iter().all(|variant| variant.fields == Fields::None),
        Type::Bytes
        | Type::Unit
        | Type::Option(_)
        | Type::Seq(_)
        | Type::Map(_)
        | Type::Tuple(_)
        | Type::Struct { fields: Fields::None | Fields::Named(_), .. } => false,
    }
}

/// What Rust reads as a number and JSON does not, as `inf`, is none.
fn number<T: FromStr + Copy>(text: &str, is_finite: fn(T) -> bool) -> Option<T> {
    let starts = text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit());
    text.parse().ok().filter(|number| starts && is_finite(*number))
}

fn string(raw: &RawValue) -> Result<String, Unfit> {
    serde_json::from_str(raw.get()).map_err(|_| Unfit::expected("a string", raw.get()))
}

fn list(of: &Type, raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let mut bytes = Vec::new();
    let expected = || format!("a list of {}", expected(of));
    let count = each_element(raw, &expected, &mut |_, element| value(of, element, &mut bytes))?;
    append_count(count, out);
    out.append(&mut bytes);
    Ok(())
}

fn tuple(types: &[Type], raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let expected = || format!("a list of {} values", types.len());
    let count = each_element(raw, &expected, &mut |at, element| match types.get(at) {
        Some(ty) => value(ty, element, out),
        None => Err(Unfit::expected("the end of the list", element.get())),
    })?;
    if count < types.len() {
        return Err(Unfit::expected(expected(), raw.get()));
    }
    Ok(())
}

fn map(key: &Type, of: &Type, raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let mut bytes = Vec::new();
    let mut count = 0;
    if is_plain(key) {
        if !raw.get().starts_with('{') {
            return Err(Unfit::expected("an object", raw.get()));
        }
        let mut seen = std::collections::HashSet::new();
        each_entry(raw, &mut |name, held| {
            if !seen.insert(name.clone()) {
                return Err(Unfit::new(UnfitProblem::Twice { name }));
            }
            count += 1;
            let entry = plain(key, &name, &name, &mut bytes).and_then(|()| value(of, held, &mut bytes));
            entry.map_err(|unfit| unfit.at(Step::Name(name)))
        })?;
    } else {
        let expected = || "a list of pairs of key and value".to_owned();
        count = each_element(raw, &expected, &mut |_, pair| {
            let count =
                each_element(pair, &|| "a pair of key and value".to_owned(), &mut |at, half| match at {
                    0 => value(key, half, &mut bytes),
                    1 => value(of, half, &mut bytes),
                    _ => Err(Unfit::expected("the end of the pair", half.get())),
                })?;
            if count == 2 { Ok(()) } else { Err(Unfit::expected("a pair of key and value", pair.get())) }
        })?;
    }
    append_count(count, out);
    out.append(&mut bytes);
    Ok(())
}

/// Fields may come in any order, and go in theirs.
fn object(named: &[Field], raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Unfit> {
    if !raw.get().starts_with('{') {
        return Err(Unfit::expected(expected_object(named), raw.get()));
    }
    let mut found: Vec<Option<Vec<u8>>> = vec![None; named.len()];
    each_entry(raw, &mut |name, held| {
        let Some(at) = named.iter().position(|field| field.name == name) else {
            let known = named.iter().map(|field| field.name.clone()).collect();
            return Err(Unfit::new(UnfitProblem::Unknown { what: "field", found: name, known }));
        };
        if found[at].is_some() {
            return Err(Unfit::new(UnfitProblem::Twice { name }));
        }
        let mut bytes = Vec::new();
        value(&named[at].ty, held, &mut bytes).map_err(|unfit| unfit.at(Step::Name(name)))?;
        found[at] = Some(bytes);
        Ok(())
    })?;
    for (field, found) in named.iter().zip(found) {
        match found {
            Some(mut bytes) => out.append(&mut bytes),
            // As serde has it: an option that is not given is none.
            None if matches!(field.ty, Type::Option(_)) => out.push(0),
            None => {
                let (field, expected) = (field.name.clone(), expected(&field.ty));
                return Err(Unfit::new(UnfitProblem::Missing { field, expected }));
            }
        }
    }
    Ok(())
}

/// What belongs in the place of a type, in words.
pub(super) fn expected(ty: &Type) -> String {
    match ty {
        Type::Bool => "true or false".to_owned(),
        Type::Int(int) => {
            let (least, most) = int.range();
            format!("an integer {least} to {most}")
        }
        Type::F32 | Type::F64 => "a number".to_owned(),
        Type::Char => "a string of one character".to_owned(),
        Type::String => "a string".to_owned(),
        Type::Bytes => "a list of bytes, 0 to 255 each".to_owned(),
        Type::Unit | Type::Struct { fields: Fields::None, .. } => "null".to_owned(),
        Type::Option(inner) => format!("null or {}", expected(inner)),
        Type::Seq(_) => "a list".to_owned(),
        Type::Map(both) if is_plain(&both.0) => "an object".to_owned(),
        Type::Map(_) => "a list of pairs of key and value".to_owned(),
        Type::Tuple(types) => format!("a list of {} values", types.len()),
        Type::Struct { fields, .. } => expected_fields(fields),
        Type::Enum { variants, .. } => {
            let names: Vec<_> = variants.iter().take(8).map(|variant| variant.name.as_str()).collect();
            let more = if variants.len() > names.len() { ", …" } else { "" };
            format!("one of {}{more}", names.join(", "))
        }
    }
}

fn expected_fields(fields: &Fields) -> String {
    match fields {
        Fields::None => "nothing, as null".to_owned(),
        Fields::Positional(types) => match &types[..] {
            [only] => expected(only),
            types => format!("a list of {} values", types.len()),
        },
        Fields::Named(named) => expected_object(named),
    }
}

fn expected_object(named: &[Field]) -> String {
    let names: Vec<_> = named.iter().take(8).map(|field| field.name.as_str()).collect();
    let more = if named.len() > names.len() { ", …" } else { "" };
    format!("an object of {}{more}", names.join(", "))
}

type ForElement<'f, 'v> = dyn FnMut(usize, &'v RawValue) -> Result<(), Unfit> + 'f;
type ForEntry<'f, 'v> = dyn FnMut(String, &'v RawValue) -> Result<(), Unfit> + 'f;

/// Hands over each element of a list, and counts them.
fn each_element<'v>(
    raw: &'v RawValue,
    expected: &dyn Fn() -> String,
    each: &mut ForElement<'_, 'v>,
) -> Result<usize, Unfit> {
    if !raw.get().starts_with('[') {
        return Err(Unfit::expected(expected(), raw.get()));
    }
    let mut walk = Elements { each, count: 0, unfit: None };
    let walked = serde_json::Deserializer::from_str(raw.get()).deserialize_seq(&mut walk);
    let (count, unfit) = (walk.count, walk.unfit);
    ended(walked, unfit).map(|()| count)
}

/// Hands over each entry of an object.
fn each_entry<'v>(raw: &'v RawValue, each: &mut ForEntry<'_, 'v>) -> Result<(), Unfit> {
    let mut walk = Entries { each, unfit: None };
    let walked = serde_json::Deserializer::from_str(raw.get()).deserialize_map(&mut walk);
    let unfit = walk.unfit;
    ended(walked, unfit)
}

fn ended(walked: Result<(), serde_json::Error>, unfit: Option<Unfit>) -> Result<(), Unfit> {
    match (walked, unfit) {
        (Ok(()), None) => Ok(()),
        (_, Some(unfit)) => Err(unfit),
        (Err(error), None) => Err(Unfit::new(UnfitProblem::Json { reason: error.to_string() })),
    }
}

/// What stops a walk: the error itself is kept beside it.
const STOP: &str = "it does not fit";

struct Elements<'w, 'f, 'v> {
    each: &'w mut ForElement<'f, 'v>,
    count: usize,
    unfit: Option<Unfit>,
}

impl<'v> Visitor<'v> for &mut Elements<'_, '_, 'v> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element::<&'v RawValue>()? {
            if let Err(unfit) = (self.each)(self.count, element) {
                self.unfit = Some(unfit.at(Step::Index(self.count)));
                return Err(serde::de::Error::custom(STOP));
            }
            self.count += 1;
        }
        Ok(())
    }
}

struct Entries<'w, 'f, 'v> {
    each: &'w mut ForEntry<'f, 'v>,
    unfit: Option<Unfit>,
}

impl<'v> Visitor<'v> for &mut Entries<'_, '_, 'v> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let held = map.next_value::<&'v RawValue>()?;
            if let Err(unfit) = (self.each)(name, held) {
                self.unfit = Some(unfit);
                return Err(serde::de::Error::custom(STOP));
            }
        }
        Ok(())
    }
}
