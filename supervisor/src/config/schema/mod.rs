//! A settings type as its service describes it, and values measured against it.
//!
//! The service's own deserializer has the last word (it may refuse what this lets pass); here an operator is told
//! before a process starts, and in terms of what they wrote: path, what was found, what was expected.
//!
//! Values that are to be shown to anybody go through [`Schema::shown`] or [`Schema::shown_at`]: some are secret.

mod pattern;
mod secret;
mod shape;
mod words;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::Location;
use serde_json::{Map, Value};
use watchdog_protocol::Manifest;
use watchdog_protocol::control::SECRET;

use super::setting::SettingPath;
use super::settings_table;
use crate::nearest::nearest;
use pattern::Patterns;
use shape::Shape;

/// A settings type, ready to check values. The default is that of no settings.
#[derive(Debug, Default)]
pub struct Schema(Option<Box<Compiled>>);

#[derive(Debug)]
struct Compiled {
    json: Value,
    validator: jsonschema::Validator,
    patterns: Patterns,
}

/// A text that is no JSON Schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SchemaError {
    /// As the reader of JSON or of schemas says it.
    pub reason: String,
}

/// One value that is not what the settings type asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A value of the wrong type or out of its bounds.
    #[error("{path} = {found}, expected {expected}")]
    Value {
        /// Which.
        path: SettingPath,
        /// The value, as JSON; [`SECRET`] where it is one, or may be.
        found: String,
        /// In words.
        expected: String,
    },
    /// A required value that is nowhere.
    #[error("{path} is missing, expected {expected}")]
    Missing {
        /// Which.
        path: SettingPath,
        /// In words.
        expected: String,
    },
    /// A key that the type does not have.
    #[error("unknown setting `{path}`")]
    Unknown {
        /// Which.
        path: SettingPath,
        /// The keys there are in its place.
        known: Vec<String>,
    },
    /// A secret that lies in a file, and can't be had from there.
    #[error("{path}: {reason}")]
    Unread {
        /// Which.
        path: SettingPath,
        /// Why.
        reason: String,
    },
    /// The settings type is `()`.
    #[error("it has no settings, so none can be given")]
    NoSettings,
}

impl Invalid {
    /// Which value, or where it would be.
    pub fn path(&self) -> &SettingPath {
        match self {
            Self::Value { path, .. }
            | Self::Missing { path, .. }
            | Self::Unknown { path, .. }
            | Self::Unread { path, .. } => path,
            Self::NoSettings => const { &SettingPath::WHOLE },
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let Self::Unknown { path, known } = self else { return None };
        let key = path.keys().last()?;
        match nearest(key, known.iter().map(String::as_str)) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if known.is_empty() => None,
            None => Some(format!("known are: {}", known.join(", "))),
        }
    }
}

impl Schema {
    /// Of the settings type of a manifest.
    ///
    /// # Errors
    /// [`SchemaError`] when its text is no JSON Schema.
    pub fn of(manifest: &Manifest) -> Result<Self, SchemaError> {
        match &manifest.settings {
            Some(text) => Self::compile(text),
            None => Ok(Self(None)),
        }
    }

    /// Of the text of a manifest, for looking only; nothing is known when it is none.
    pub fn of_text(manifest: &str) -> Self {
        let manifest = Manifest::parse(manifest.as_bytes()).ok();
        manifest.and_then(|manifest| Self::of(&manifest).ok()).unwrap_or_default()
    }

    /// Of the text of a JSON Schema; `{"type": "null"}` stands for no settings.
    ///
    /// # Errors
    /// [`SchemaError`] when it is none.
    pub fn compile(text: &str) -> Result<Self, SchemaError> {
        let json: Value =
            serde_json::from_str(text).map_err(|err| SchemaError { reason: err.to_string() })?;
        if json.get("type") == Some(&Value::from("null")) {
            return Ok(Self(None));
        }
        let validator =
            jsonschema::validator_for(&json).map_err(|err| SchemaError { reason: err.to_string() })?;
        let patterns = Patterns::of(&json);
        Ok(Self(Some(Box::new(Compiled { json, validator, patterns }))))
    }

    /// Whether the settings type is `()`.
    pub fn has_no_settings(&self) -> bool {
        self.0.is_none()
    }

    /// What the service gets when these values are given: the type's defaults are filled in. `null` when it has
    /// no settings.
    ///
    /// # Errors
    /// All that is wrong with the values.
    pub fn complete(&self, values: Map<String, Value>) -> Result<Value, Vec<Invalid>> {
        let Some(compiled) = self.0.as_deref() else {
            return if values.is_empty() { Ok(Value::Null) } else { Err(vec![Invalid::NoSettings]) };
        };
        let root = Shape::of(compiled);
        let value = self.filled(values);
        let mut found = Vec::new();
        root.unknown(&value, &SettingPath::WHOLE, &mut found);
        for error in compiled.validator.iter_errors(&value) {
            translate(&error, &root, &value, &mut found);
        }
        if found.is_empty() { Ok(value) } else { Err(found) }
    }

    /// The values with the type's defaults filled in, whatever is wrong with them; `null` when it has no settings.
    pub fn filled(&self, values: Map<String, Value>) -> Value {
        let Some(compiled) = self.0.as_deref() else { return Value::Null };
        let mut value = Value::Object(values);
        Shape::of(compiled).fill(&mut value);
        value
    }

    /// A value as an operator types it: JSON, or plain text where the type wants text (`name=10` is text then,
    /// and so is what is no JSON at all).
    ///
    /// # Errors
    /// [`Invalid`] for a path that is not there, and for text where something else is wanted.
    pub fn parse_value(&self, path: &SettingPath, text: &str) -> Result<Value, Invalid> {
        let Some(compiled) = self.0.as_deref() else { return Err(Invalid::NoSettings) };
        let mut shape = Shape::of(compiled);
        let mut around = SettingPath::WHOLE;
        let holds_secret = self.holds_secret(path.keys());
        for key in path.keys() {
            let inner = shape.inner(key);
            around = around.join(key);
            if inner.is_nothing() && !shape.is_anything() {
                return Err(Invalid::Unknown { path: around, known: shape.keys() });
            }
            shape = inner;
        }
        match settings_table::typed(text) {
            Some(value) if value.is_string() || shape.is_anything() || shape.takes(&value) => Ok(value),
            Some(_) | None if shape.is_anything() || shape.takes(&Value::from("")) => Ok(Value::from(text)),
            // It is of the wrong type; the check of the whole says so better.
            Some(value) => Ok(value),
            None => Err(Invalid::Value {
                path: path.clone(),
                found: if holds_secret { SECRET.to_owned() } else { words::shortened(text) },
                expected: words::expected(&shape),
            }),
        }
    }

    /// Whether a text may be the value at this path.
    pub fn takes_text(&self, path: &SettingPath) -> bool {
        self.0.as_ref().is_some_and(|compiled| {
            let shape = path.keys().iter().fold(Shape::of(compiled), |shape, key| shape.inner(key));
            shape.takes(&Value::from(""))
        })
    }
}

/// What a validator's finding means to whoever wrote the value.
fn translate(error: &ValidationError<'_>, root: &Shape<'_>, value: &Value, found: &mut Vec<Invalid>) {
    let path = SettingPath::WHOLE.joined(error.instance_path().segments().map(|key| key.to_string()));
    let mut is_secret = root.is_secret();
    let shape = path.keys().iter().fold(root.clone(), |shape, key| {
        let inner = shape.inner(key);
        is_secret |= inner.is_secret();
        inner
    });
    let quoted = |value: &Value| match value {
        // Its values are not quoted anyway.
        Value::Object(_) => words::json(value),
        _ if is_secret || shape.holds_secret() => SECRET.to_owned(),
        value => words::json(value),
    };
    let told = |found: &[Invalid], path: &SettingPath| found.iter().any(|invalid| invalid.path() == path);
    let expected = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            for path in unexpected.iter().map(|key| path.join(key)) {
                if !told(found, &path) {
                    found.push(Invalid::Unknown { path, known: shape.keys() });
                }
            }
            return;
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let path = path.join(key);
            if !told(found, &path) {
                found.push(Invalid::Missing { path, expected: words::expected(&shape.inner(key)) });
            }
            return;
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            if let Some(meant) = meant(context, error.instance_path().as_str()) {
                for error in meant {
                    translate(error, root, value, found);
                }
                return;
            }
            if let Some((tag, variants)) = unknown_variant(context) {
                let path = SettingPath::WHOLE.joined(tag.segments().map(|key| key.to_string()));
                let found_tag = value.pointer(tag.as_str()).map(quoted).unwrap_or_default();
                found.push(Invalid::Value { path, found: found_tag, expected: words::any_of(variants) });
                return;
            }
            words::expected(&shape)
        }
        ValidationErrorKind::UniqueItems => "no element twice".to_owned(),
        ValidationErrorKind::MultipleOf { multiple_of } => format!("a multiple of {multiple_of}"),
        ValidationErrorKind::Type { .. }
        | ValidationErrorKind::Enum { .. }
        | ValidationErrorKind::Constant { .. }
        | ValidationErrorKind::Minimum { .. }
        | ValidationErrorKind::Maximum { .. }
        | ValidationErrorKind::ExclusiveMinimum { .. }
        | ValidationErrorKind::ExclusiveMaximum { .. }
        | ValidationErrorKind::MinLength { .. }
        | ValidationErrorKind::MaxLength { .. }
        | ValidationErrorKind::MinItems { .. }
        | ValidationErrorKind::MaxItems { .. }
        | ValidationErrorKind::Pattern { .. }
        | ValidationErrorKind::Format { .. } => words::expected_instead_of(error.instance(), &shape),
        // What no settings type of the SDK asks for, but a schema written by hand may.
        other => format!("what `{}` of its schema asks for", other.keyword()),
    };
    if !told(found, &path) {
        found.push(Invalid::Value { path, found: quoted(error.instance()), expected });
    }
}

/// Of several alternatives that all failed, the one that was meant: it got furthest, and no other as far.
fn meant<'e>(
    context: &'e [Vec<ValidationError<'static>>],
    at: &str,
) -> Option<&'e Vec<ValidationError<'static>>> {
    let miss = |error: &ValidationError<'_>| {
        let here = error.instance_path().as_str() == at;
        match error.kind() {
            // Another type, or the tag of another variant.
            ValidationErrorKind::Constant { .. } => 3,
            ValidationErrorKind::Type { .. } | ValidationErrorKind::Enum { .. } if here => 3,
            ValidationErrorKind::AdditionalProperties { .. } if here => 2,
            ValidationErrorKind::Required { .. } if here => 1,
            _ => 0,
        }
    };
    let worst = |errors: &Vec<ValidationError<'static>>| errors.iter().map(miss).max().unwrap_or(3);
    let best = context.iter().map(worst).min().filter(|best| *best < 3)?;
    let mut closest = context.iter().filter(|errors| worst(errors) == best);
    closest.next().filter(|_| closest.next().is_none())
}

/// When all alternatives are tables told apart by a tag, and its value is that of none: the tag's place, and the
/// values there are.
fn unknown_variant<'e>(context: &'e [Vec<ValidationError<'static>>]) -> Option<(&'e Location, Vec<String>)> {
    let tag = |errors: &Vec<ValidationError<'static>>| {
        errors.iter().position(|error| matches!(error.kind(), ValidationErrorKind::Constant { .. }))
    };
    let tags: Option<Vec<_>> = context.iter().map(|errors| tag(errors).map(|at| &errors[at])).collect();
    let tags = tags?;
    let place = tags.first()?.instance_path();
    let variant = |error: &&ValidationError<'static>| match error.kind() {
        ValidationErrorKind::Constant { expected_value } if error.instance_path() == place => {
            Some(expected_value.to_string())
        }
        _ => None,
    };
    Some((place, tags.iter().map(variant).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests;
