//! Values that nobody is shown.
//!
//! Whatever shows settings shows them through [`Schema::shown`] or [`Schema::shown_at`]: `get`, `history`, a bundle, a
//! difference between what is in force and what a file says. What only names paths needs neither.
//!
//! A value is a secret when its schema says so, or that of a table around it. One that the schema knows nothing of is
//! taken for one: the settings type may have had another name for it in an older build of the program. So is one of which
//! it says something where we can't look.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use watchdog_protocol::control::SECRET;
use watchdog_protocol::manifest::SECRET_KEYWORD;

use super::shape::{Shape, refers_elsewhere, refers_to};
use super::{Compiled, Invalid, Schema};
use crate::config::setting::SettingPath;

/// A value that is not shown.
pub(super) fn hidden() -> Value {
    Value::from(SECRET)
}

impl Schema {
    /// Settings as they are shown: the secret ones are [`SECRET`].
    pub fn shown(&self, mut values: Map<String, Value>) -> Map<String, Value> {
        for (key, value) in &mut values {
            *value = self.shown_at([key], std::mem::take(value));
        }
        values
    }

    /// The value at a path as it is shown, with [`SECRET`] for it or whatever in it is secret.
    pub fn shown_at<K: AsRef<str>>(&self, path: impl IntoIterator<Item = K>, mut value: Value) -> Value {
        let shape = self.0.as_ref().and_then(|compiled| compiled.at(path).ok());
        match shape {
            Some(shape) => shape.hide(&mut value),
            None => value = hidden(),
        }
        value
    }

    /// Whether the value at this path is a secret, or one in it may be.
    pub fn holds_secret<K: AsRef<str>>(&self, path: impl IntoIterator<Item = K>) -> bool {
        let compiled = self.0.as_ref();
        compiled.is_some_and(|compiled| compiled.at(path).is_ok_and(|shape| shape.holds_secret()))
    }

    /// Whether whatever stands at this path may be shown: the schema knows of such a value, and nothing in it is a secret.
    pub fn shows<K: AsRef<str>>(&self, path: impl IntoIterator<Item = K>) -> bool {
        let compiled = self.0.as_ref();
        compiled.is_some_and(|compiled| compiled.at(path).is_ok_and(|shape| !shape.holds_secret()))
    }

    /// Whether any value is a secret.
    pub fn has_secrets(&self) -> bool {
        self.0.as_ref().is_some_and(|compiled| Shape::of(compiled).holds_secret())
    }
}

/// Secrets that lie in files: `{ file = "…" }` in the place of a secret, unless its type has a key of this name itself.
impl Schema {
    /// Where they are, and the files.
    pub fn references(&self, values: &Map<String, Value>) -> Vec<(SettingPath, PathBuf)> {
        let mut found = Vec::new();
        let mut note = |path: &SettingPath, file: &Path, _: &Shape<'_>| {
            found.push((path.clone(), file.to_owned()));
            None
        };
        self.each_reference([""; 0], &mut Value::Object(values.clone()), &mut note);
        found
    }

    /// Whether this value, for this path, has one in it.
    pub fn has_reference<K: AsRef<str>>(&self, path: impl IntoIterator<Item = K>, value: &Value) -> bool {
        let mut found = false;
        let mut note = |_: &SettingPath, _: &Path, _: &Shape<'_>| {
            found = true;
            None
        };
        self.each_reference(path, &mut value.clone(), &mut note);
        found
    }

    /// The values with what `read` gives in the place of each: as it is where a text is wanted, else as JSON.
    ///
    /// # Errors
    /// Those that could not be read.
    pub fn resolved(
        &self,
        values: Map<String, Value>,
        read: &dyn Fn(&Path) -> Result<String, String>,
    ) -> Result<Map<String, Value>, Vec<Invalid>> {
        let mut wrong = Vec::new();
        let mut put = |path: &SettingPath, file: &Path, shape: &Shape<'_>| match read(file) {
            Ok(text) if shape.takes(&Value::from("")) => Some(Value::from(text)),
            Ok(text) => Some(serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text))),
            Err(reason) => {
                wrong.push(Invalid::Unread { path: path.clone(), reason });
                None
            }
        };
        let mut values = Value::Object(values);
        self.each_reference([""; 0], &mut values, &mut put);
        match values {
            Value::Object(values) if wrong.is_empty() => Ok(values),
            _ => Err(wrong),
        }
    }

    fn each_reference<K: AsRef<str>>(
        &self,
        path: impl IntoIterator<Item = K>,
        value: &mut Value,
        replace: &mut dyn FnMut(&SettingPath, &Path, &Shape<'_>) -> Option<Value>,
    ) {
        let Some(compiled) = self.0.as_deref() else { return };
        let (mut shape, mut at) = (Shape::of(compiled), SettingPath::WHOLE);
        for key in path {
            shape = shape.inner(key.as_ref());
            at = at.join(key.as_ref());
        }
        shape.each_reference(&at, value, replace);
    }
}

/// The schema knows of no such value.
struct Unknown;

impl Compiled {
    /// What is said of the value at a path; of the secret around it, where it lies in one.
    fn at<K: AsRef<str>>(&self, path: impl IntoIterator<Item = K>) -> Result<Shape<'_>, Unknown> {
        let mut shape = Shape::of(self);
        for key in path {
            if shape.is_secret() {
                break;
            }
            shape = shape.inner(key.as_ref());
        }
        if shape.is_nothing() { Err(Unknown) } else { Ok(shape) }
    }
}

impl<'s> Shape<'s> {
    /// Also when only one of several alternatives is.
    pub(super) fn is_secret(&self) -> bool {
        self.refers_elsewhere() || self.schemas().any(is_marked)
    }

    /// Whether it is a secret, or a value in it may be.
    pub(super) fn holds_secret(&self) -> bool {
        let mut seen = Vec::new();
        self.schemas().any(|schema| mentions_secret(schema, self.document(), &mut seen))
    }

    /// The file that stands for a secret.
    pub(super) fn reference<'v>(&self, value: &'v Value) -> Option<&'v Path> {
        const FILE: &str = "file";
        let table = value.as_object().filter(|table| table.len() == 1 && self.is_secret())?;
        let file = table.get(FILE)?.as_str()?;
        (!self.keys().iter().any(|key| key == FILE)).then_some(Path::new(file))
    }

    fn each_reference(
        &self,
        at: &SettingPath,
        value: &mut Value,
        replace: &mut dyn FnMut(&SettingPath, &Path, &Self) -> Option<Value>,
    ) {
        if let Some(file) = self.reference(value) {
            if let Some(new) = replace(at, file, self) {
                *value = new;
            }
            return;
        }
        match value {
            Value::Object(table) => {
                for (key, value) in table {
                    self.inner(key).each_reference(&at.join(key), value, replace);
                }
            }
            Value::Array(elements) => {
                for (position, element) in elements.iter_mut().enumerate() {
                    let key = position.to_string();
                    self.inner(&key).each_reference(&at.join(&key), element, replace);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Puts [`SECRET`](super::SECRET) in the place of each secret.
    fn hide(&self, value: &mut Value) {
        if self.is_nothing() || self.is_secret() {
            *value = hidden();
            return;
        }
        match value {
            Value::Object(table) => {
                for (key, value) in table {
                    self.inner(key).hide(value);
                }
            }
            Value::Array(elements) => {
                for (at, element) in elements.iter_mut().enumerate() {
                    self.inner(&at.to_string()).hide(element);
                }
            }
            // What has the place of a table with a secret in it may be that secret.
            Value::Bool(_) | Value::Number(_) | Value::String(_) if self.holds_secret() => *value = hidden(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn is_marked(schema: &Map<String, Value>) -> bool {
    schema.get(SECRET_KEYWORD) == Some(&Value::Bool(true))
}

/// Anywhere in it, or in what it refers to.
fn mentions_secret<'s>(
    schema: &'s Map<String, Value>,
    document: &'s Value,
    seen: &mut Vec<&'s Map<String, Value>>,
) -> bool {
    if seen.iter().any(|known| std::ptr::eq(*known, schema)) {
        return false;
    }
    seen.push(schema);
    let mut within = |value: &'s Value| match value {
        Value::Object(inner) => mentions_secret(inner, document, seen),
        Value::Array(all) => {
            let mut tables = all.iter().filter_map(Value::as_object);
            tables.any(|inner| mentions_secret(inner, document, seen))
        }
        _ => false,
    };
    is_marked(schema)
        || refers_elsewhere(schema, document)
        || refers_to(schema, document).is_some_and(&mut within)
        || schema.values().any(within)
}

#[cfg(test)]
mod tests;
