//! A layout's text as a tree.
//!
//! ```text
//! type     bool i8 … string bytes unit │ ?type │ [type,] │ <type,type,> │ (type,…)
//!          Name │ Name(type,…) │ Name{field:type,…} │ Name|Variant|Variant(type,…)|Variant{…}|
//! message  field:type,…  then nothing, ->type (asked at most once) or =>type (until answered)
//! ```

use super::{Asks, Field, Fields, Int, Type, Variant};
use crate::limits::{MAX_LAYOUT, MAX_LAYOUT_DEPTH};

/// Why a text is no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// More text than any layout has.
    #[error("it has {length} bytes, at most {MAX_LAYOUT} are read")]
    Long {
        /// Its length.
        length: usize,
    },
    /// Types within types within types.
    #[error("it goes more than {MAX_LAYOUT_DEPTH} types deep, as one that contains itself would")]
    Deep,
    /// Something else than what belongs there.
    #[error("at byte {at} of {expected} there is {found}")]
    Unexpected {
        /// Where.
        at: usize,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A type that is a description of types: nobody writes a value of it.
    #[error("it holds a schema, which has no form in JSON")]
    Schema,
}

/// The fields of a message, and the type of its answer.
pub(super) fn message(text: &str) -> Result<(Fields, Option<(Asks, Type)>), ParseError> {
    let mut parser = Parser::new(text)?;
    let mut fields = Vec::new();
    let asks = loop {
        match parser.rest() {
            "" => break None,
            rest if rest.starts_with("->") => break Some(Asks::Once),
            rest if rest.starts_with("=>") => break Some(Asks::UntilAnswered),
            _ => fields.push(parser.field(0)?),
        }
    };
    let reply = match asks {
        None => None,
        Some(asks) => {
            parser.at += 2;
            Some((asks, parser.ty(0)?))
        }
    };
    parser.end()?;
    Ok((of_message(fields), reply))
}

/// Fields that have numbers for names have places; the one that was the reply is missing among them.
fn of_message(fields: Vec<Field>) -> Fields {
    if fields.is_empty() {
        Fields::None
    } else if fields.iter().all(|field| field.name.bytes().all(|byte| byte.is_ascii_digit())) {
        Fields::Positional(fields.into_iter().map(|field| field.ty).collect())
    } else {
        Fields::Named(fields)
    }
}

/// One type.
#[cfg(test)]
pub(super) fn ty(text: &str) -> Result<Type, ParseError> {
    let mut parser = Parser::new(text)?;
    let ty = parser.ty(0)?;
    parser.end()?;
    Ok(ty)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Result<Self, ParseError> {
        if text.len() > MAX_LAYOUT {
            return Err(ParseError::Long { length: text.len() });
        }
        Ok(Self { text, at: 0 })
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn end(&self) -> Result<(), ParseError> {
        if self.is_at_end() { Ok(()) } else { Err(self.unexpected("the end")) }
    }

    fn unexpected(&self, expected: &'static str) -> ParseError {
        let found = self.rest().chars().next().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"));
        ParseError::Unexpected { at: self.at, expected, found }
    }

    fn eat(&mut self, c: char) -> bool {
        let is_there = self.rest().starts_with(c);
        self.at += if is_there { c.len_utf8() } else { 0 };
        is_there
    }

    fn expect(&mut self, c: char, expected: &'static str) -> Result<(), ParseError> {
        if self.eat(c) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// A name is what is not punctuation; a renamed one may hold anything else.
    fn name(&mut self, until: &[char], expected: &'static str) -> Result<&'t str, ParseError> {
        let rest = self.rest();
        let length = rest.find(until).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.unexpected(expected));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn ty(&mut self, depth: usize) -> Result<Type, ParseError> {
        if depth == MAX_LAYOUT_DEPTH {
            return Err(ParseError::Deep);
        }
        if self.eat('?') {
            return Ok(Type::Option(Box::new(self.ty(depth + 1)?)));
        }
        if self.eat('[') {
            let inner = self.element(depth)?;
            self.expect(']', "a list's end")?;
            return Ok(Type::Seq(Box::new(inner)));
        }
        if self.eat('<') {
            let both = (self.element(depth)?, self.element(depth)?);
            self.expect('>', "a map's end")?;
            return Ok(Type::Map(Box::new(both)));
        }
        if self.eat('(') {
            return Ok(Type::Tuple(self.elements(depth)?));
        }
        let mut name = self.name(&['(', ')', '{', '}', '[', ']', '<', '>', '|', ',', '?'], "a type")?;
        if self.rest().starts_with('<') {
            name = self.with_parameters(name)?;
        }
        if self.eat('|') {
            return Ok(Type::Enum { name: bare(name), variants: self.variants(depth)? });
        }
        let fields = self.fields(depth)?;
        if fields == Fields::None
            && let Some(plain) = plain(name)
        {
            return plain.ok_or(ParseError::Schema);
        }
        Ok(Type::Struct { name: bare(name), fields })
    }

    /// `Result<T, E>`: what is between the brackets is part of the name.
    fn with_parameters(&mut self, name: &'t str) -> Result<&'t str, ParseError> {
        let start = self.at - name.len();
        let mut open = 0usize;
        for (at, c) in self.rest().char_indices() {
            match c {
                '<' => open += 1,
                '>' => open -= 1,
                _ => {}
            }
            if open == 0 {
                self.at += at + 1;
                return Ok(&self.text[start..self.at]);
            }
        }
        self.at = self.text.len();
        Err(self.unexpected("the end of a type's parameters"))
    }

    fn element(&mut self, depth: usize) -> Result<Type, ParseError> {
        let ty = self.ty(depth + 1)?;
        self.expect(',', "a comma")?;
        Ok(ty)
    }

    fn elements(&mut self, depth: usize) -> Result<Vec<Type>, ParseError> {
        let mut types = Vec::new();
        while !self.eat(')') {
            types.push(self.element(depth)?);
        }
        Ok(types)
    }

    fn fields(&mut self, depth: usize) -> Result<Fields, ParseError> {
        if self.eat('(') {
            return Ok(Fields::Positional(self.elements(depth)?));
        }
        if !self.eat('{') {
            return Ok(Fields::None);
        }
        let mut fields = Vec::new();
        while !self.eat('}') {
            fields.push(self.field(depth)?);
        }
        Ok(Fields::Named(fields))
    }

    fn field(&mut self, depth: usize) -> Result<Field, ParseError> {
        let name = bare(self.name(&[':'], "a field's name")?);
        self.expect(':', "a colon")?;
        Ok(Field { name, ty: self.element(depth)? })
    }

    /// Each ends with a bar; what follows the last one is no name.
    fn variants(&mut self, depth: usize) -> Result<Vec<Variant>, ParseError> {
        let mut variants = Vec::new();
        while !self.is_at_end() && !self.rest().starts_with([',', ')', '}', ']', '>']) {
            let name = bare(self.name(&['(', '{', '|', ',', ')', '}', ']'], "a variant's name")?);
            variants.push(Variant { name, fields: self.fields(depth)? });
            self.expect('|', "a bar")?;
        }
        Ok(variants)
    }
}

/// A name as serde writes it: `r#type` is `type`.
fn bare(name: &str) -> String {
    name.strip_prefix("r#").unwrap_or(name).to_owned()
}

/// A type without parts; `Some(None)`: a schema.
fn plain(name: &str) -> Option<Option<Type>> {
    Some(Some(match name {
        "bool" => Type::Bool,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "char" => Type::Char,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "unit" => Type::Unit,
        "schema" => return Some(None),
        other => Type::Int(Int::named(other)?),
    }))
}
