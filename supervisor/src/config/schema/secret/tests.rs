use serde_json::json;

use super::*;

/// What schemars writes for secrets in all kinds of places.
const SECRETS: &str = r##"{
    "type": "object",
    "properties": {
        "user": { "type": "string" },
        "token": { "type": "string", "minLength": 4, "writeOnly": true, "x-secret": true },
        "maybe": { "type": ["string", "null"], "writeOnly": true, "x-secret": true },
        "pin": { "type": "integer", "maximum": 9999, "writeOnly": true, "x-secret": true },
        "tokens": { "type": "array", "items": { "type": "string", "writeOnly": true, "x-secret": true }, "maxItems": 2 },
        "by_host": { "type": "object", "additionalProperties": { "type": "string", "writeOnly": true, "x-secret": true } },
        "by_port": { "type": "object", "additionalProperties": false,
                     "patternProperties": { "^\\d+$": { "type": "string", "writeOnly": true, "x-secret": true } } },
        "names": { "type": "object", "additionalProperties": false, "patternProperties": { "^\\d+$": { "type": "string" } } },
        "anteroom": { "$ref": "#/$defs/Vorr%C3%A4ume~1%5BT%5D" },
        "rest": { "type": "object", "oneOf": [{ "type": "object", "properties": { "user": { "type": "string" } } }],
                  "unevaluatedProperties": { "type": "string", "writeOnly": true, "x-secret": true } },
        "whole": { "$ref": "#/$defs/Pair", "writeOnly": true, "x-secret": true },
        "db": { "anyOf": [{ "$ref": "#/$defs/Db" }, { "type": "null" }] },
        "auth": { "oneOf": [
            { "type": "string", "enum": ["nobody"] },
            { "type": "object", "properties": { "token": { "type": "string", "writeOnly": true, "x-secret": true } },
              "required": ["token"], "additionalProperties": false }
        ] }
    },
    "$defs": {
        "Vorräume/[T]": { "type": "object", "properties": {
            "user": { "type": "string" }, "key": { "type": "string", "writeOnly": true, "x-secret": true } } },
        "Pair": { "type": "object", "properties": { "user": { "type": "string" }, "word": { "type": "string" } },
                  "required": ["user", "word"] },
        "Db": { "type": "object", "properties": {
            "host": { "type": "string" }, "password": { "type": "string", "writeOnly": true, "x-secret": true },
            "replica": { "anyOf": [{ "$ref": "#/$defs/Db" }, { "type": "null" }] }
        } }
    }
}"##;

fn schema() -> Schema {
    Schema::compile(SECRETS).unwrap()
}

fn shown(values: Value) -> Value {
    let Value::Object(values) = values else { panic!("settings are a table") };
    Value::Object(schema().shown(values))
}

#[test]
fn a_secret_is_hidden_wherever_it_stands_and_nothing_else_is() {
    let given = json!({
        "user": "me", "token": "canary", "maybe": "canary", "pin": 735, "tokens": ["canary", "canary"],
        "by_host": { "a": "canary" }, "by_port": { "8080": "canary" }, "names": { "1": "one" },
        "anteroom": { "user": "me", "key": "canary" }, "rest": { "user": "me", "other": "canary" },
        "whole": { "user": "canary", "word": "canary" },
        "db": { "host": "db", "password": "canary", "replica": { "host": "two", "password": "canary" } },
        "auth": { "token": "canary" },
    });
    assert_eq!(
        shown(given),
        json!({
            "user": "me", "token": SECRET, "maybe": SECRET, "pin": SECRET, "tokens": [SECRET, SECRET],
            "by_host": { "a": SECRET }, "by_port": { "8080": SECRET }, "names": { "1": "one" },
            "anteroom": { "user": "me", "key": SECRET }, "rest": { "user": "me", "other": SECRET },
            "whole": SECRET,
            "db": { "host": "db", "password": SECRET, "replica": { "host": "two", "password": SECRET } },
            "auth": { "token": SECRET },
        })
    );
    assert_eq!(shown(json!({ "db": null, "auth": "nobody" }))["db"], json!(null));
}

#[test]
fn what_the_schema_does_not_know_or_does_not_fit_is_hidden_too() {
    let given = json!({ "tokn": "canary", "db": "canary", "by_port": { "http": "canary" },
                        "names": { "first": "canary" }, "user": "me" });
    let hidden = json!({ "tokn": SECRET, "db": SECRET, "by_port": { "http": SECRET },
                         "names": { "first": SECRET }, "user": "me" });
    assert_eq!(shown(given), hidden);
    let none = Schema::compile(r#"{"type":"null"}"#).unwrap();
    assert_eq!(none.shown_at(["token"], json!("canary")), json!(SECRET));
}

#[test]
fn a_key_has_what_each_pattern_says_that_matches_it() {
    let schema = Schema::compile(
        r#"{ "type": "object", "properties": { "token_of": { "type": "string" }, "user": { "type": "string" } },
             "patternProperties": { "^token": { "x-secret": true }, "^(?!user)": { "type": "string" } } }"#,
    )
    .unwrap();
    let at = |key: &str| schema.shown_at([key], json!("canary"));
    assert_eq!(["token_of", "tokens", "user", "users"].map(at), [SECRET, SECRET, "canary", "canary"]);
}

/// By an anchor, or by whatever else of JSON Schema: a validator may know, we don't.
#[test]
fn what_is_said_elsewhere_than_we_can_look_is_a_secret() {
    let schema = Schema::compile(
        r##"{ "type": "object", "properties": { "token": { "$ref": "#token" }, "all": { "items": { "$ref": "#token" } },
              "moved": { "$dynamicRef": "#token" } },
              "$defs": { "Token": { "$anchor": "token", "type": "string", "x-secret": true } } }"##,
    )
    .unwrap();
    for (path, value) in [("token", json!("canary")), ("all", json!(["canary"])), ("moved", json!("canary"))]
    {
        let shown = schema.shown_at([path], value).to_string();
        assert!(!shown.contains("canary") && schema.holds_secret([path]), "{path}: {shown}");
    }
}

#[test]
fn one_value_is_hidden_as_it_is_within_the_whole() {
    let at = |path: &str, value: Value| schema().shown_at(path.split('.'), value);
    assert_eq!(at("token", json!("canary")), json!(SECRET));
    assert_eq!(at("whole.user", json!("canary")), json!(SECRET));
    assert_eq!(at("db.replica.password", json!("canary")), json!(SECRET));
    assert_eq!(at("db", json!({ "password": "canary" })), json!({ "password": SECRET }));
    assert_eq!(at("db.host", json!("db")), json!("db"));
    let holds = |path: &str| schema().holds_secret(path.split('.'));
    for path in [
        "token",
        "tokens",
        "tokens.0",
        "by_host.a",
        "by_port",
        "by_port.8080",
        "anteroom",
        "anteroom.key",
        "rest.a",
        "whole.user",
        "auth.token",
        "db",
        "auth",
    ] {
        assert!(holds(path), "{path}");
    }
    assert!(!holds("user") && !holds("tokn") && !holds("db.host"));
    assert!(schema().has_secrets());
    assert!(
        !Schema::compile(r#"{"type":"object","properties":{"writeOnly":{"type":"boolean"}}}"#)
            .unwrap()
            .has_secrets()
    );
}

#[test]
fn what_is_said_against_a_wrong_value_does_not_quote_it() {
    for wrong in [
        json!({ "token": 73573573 }),
        json!({ "token": "735" }),
        json!({ "maybe": 735 }),
        json!({ "pin": "735" }),
        json!({ "pin": 73573 }),
        json!({ "tokens": [735] }),
        json!({ "tokens": "735" }),
        json!({ "tokens": ["735", "735", "735"] }),
        json!({ "by_host": { "a": 735 } }),
        json!({ "by_host": "735" }),
        json!({ "by_port": { "1": 735 } }),
        json!({ "by_port": "735" }),
        json!({ "anteroom": { "key": 735 } }),
        json!({ "rest": { "a": 735 } }),
        json!({ "whole": "735" }),
        json!({ "whole": { "user": 735, "word": [735] } }),
        json!({ "whole": { "user": "735" } }),
        json!({ "db": "735" }),
        json!({ "db": { "password": 735 } }),
        json!({ "db": { "replica": 735 } }),
        json!({ "auth": "735" }),
        json!({ "auth": { "token": 735 } }),
        json!({ "auth": { "tokn": "735" } }),
    ] {
        let Value::Object(values) = wrong else { panic!("settings are a table") };
        for told in schema().complete(values.clone()).unwrap_err() {
            assert!(!told.to_string().contains("735"), "{values:?}: {told}");
        }
    }
    let told = schema().complete(json!({ "token": 1 }).as_object().unwrap().clone()).unwrap_err();
    assert_eq!(told[0].to_string(), "token = (secret), expected a string of at least 4 characters");
    let told = schema().parse_value(&"pin".parse().unwrap(), "735x").unwrap_err();
    assert_eq!(told.to_string(), "pin = (secret), expected an integer, at most 9999");
}

proptest::proptest! {
    /// Whatever stands wherever: the shown settings, and all that is said against the values, are without it.
    #[test]
    fn no_value_in_a_secret_place_is_shown(values in tables(3)) {
        let Value::Object(values) = values else { unreachable!("it is a table") };
        let schema = schema();
        let shown = Value::Object(schema.shown(values.clone())).to_string();
        proptest::prop_assert!(!shown.contains("canary"), "{values:?}: {shown}");
        for told in schema.complete(values.clone()).err().into_iter().flatten() {
            proptest::prop_assert!(!told.to_string().contains("canary"), "{values:?}: {told}");
        }
    }
}

/// Canaries anywhere but where the schema wants something that is no secret.
fn tables(depth: u32) -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![Just(json!("canary")), Just(json!(["canary"])), Just(json!({ "free": "canary" }))];
    let keys = prop::sample::select(vec![
        "token", "maybe", "pin", "tokens", "by_host", "by_port", "anteroom", "key", "rest", "whole", "db",
        "auth", "password", "replica", "word", "other", "0",
    ]);
    let table = |inner: BoxedStrategy<Value>| {
        prop::collection::btree_map(keys.clone(), inner, 0..4)
            .prop_map(|table| {
                Value::Object(table.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            })
            .boxed()
    };
    let mut level = leaf.boxed();
    for _ in 1..depth {
        level = prop_oneof![
            level.clone(),
            table(level.clone()),
            prop::collection::vec(level, 0..3).prop_map(Value::Array)
        ]
        .boxed();
    }
    table(level)
}
