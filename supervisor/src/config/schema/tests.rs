use serde_json::json;

use super::*;

/// What schemars writes for the counter's settings, and for one with all kinds of fields.
const COUNTER: &str = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"CounterSettings",
    "type":"object","properties":{"step":{"description":"How much one `Add` is worth.","type":"integer",
    "format":"uint64","minimum":1,"maximum":1000}},"required":["step"]}"#;

const ALL: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "All", "type": "object",
    "properties": {
        "step": { "type": "integer", "format": "uint64", "minimum": 0, "default": 1 },
        "small": { "type": ["integer", "null"], "format": "uint8", "minimum": 0, "maximum": 255, "default": null },
        "name": { "type": "string", "minLength": 1, "maxLength": 8, "default": "x" },
        "ratio": { "type": "number", "format": "double", "default": 0.5 },
        "on": { "type": "boolean", "default": false },
        "level": { "$ref": "#/$defs/Level", "default": "info" },
        "filter": { "anyOf": [{ "$ref": "#/$defs/Filter" }, { "type": "null" }], "default": null },
        "filters": { "type": "array", "items": { "$ref": "#/$defs/Filter" }, "default": [] },
        "weights": { "type": "object", "additionalProperties": { "type": "integer", "format": "int32" }, "default": {} },
        "pair": { "type": "array", "prefixItems": [{ "type": "integer" }, { "type": "string" }],
                  "minItems": 2, "maxItems": 2, "default": [1, "a"] },
        "output": { "$ref": "#/$defs/Output", "default": { "kind": "Console" } },
        "free": { "default": null }
    },
    "$defs": {
        "Level": { "oneOf": [{ "type": "string", "enum": ["info", "debug"] }, { "description": "All.", "type": "string", "const": "trace" }] },
        "Filter": { "type": "object", "properties": {
            "target": { "type": "string" },
            "most": { "type": "integer", "format": "uint32", "minimum": 0, "default": 7 },
            "inner": { "anyOf": [{ "$ref": "#/$defs/Filter" }, { "type": "null" }] }
        }, "required": ["target"] },
        "Output": { "oneOf": [
            { "type": "object", "properties": { "kind": { "type": "string", "const": "Console" } }, "required": ["kind"] },
            { "type": "object", "properties": { "kind": { "type": "string", "const": "File" }, "path": { "type": "string" } },
              "required": ["kind", "path"] }
        ] }
    }
}"##;

fn complete(schema: &str, values: Value) -> Result<Value, String> {
    let Value::Object(values) = values else { panic!("settings are a table") };
    Schema::compile(schema).unwrap().complete(values).map_err(|all| {
        let told = |invalid: &Invalid| {
            let hint = invalid.hint().map(|hint| format!(" ({hint})"));
            format!("{invalid}{}", hint.unwrap_or_default())
        };
        all.iter().map(told).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn a_value_out_of_bounds_is_told_with_the_bounds() {
    assert_eq!(complete(COUNTER, json!({ "step": 2 })), Ok(json!({ "step": 2 })));
    let wrong = |values| complete(COUNTER, values).unwrap_err();
    assert_eq!(wrong(json!({ "step": 0 })), "step = 0, expected 1 to 1000");
    assert_eq!(wrong(json!({ "step": "two" })), "step = \"two\", expected an integer 1 to 1000");
    assert_eq!(wrong(json!({ "step": 1.5 })), "step = 1.5, expected an integer 1 to 1000");
    assert_eq!(wrong(json!({})), "step is missing, expected an integer 1 to 1000");
}

#[test]
fn an_unknown_key_is_an_error_though_the_type_would_let_it_pass() {
    let both = complete(COUNTER, json!({ "stepp": 3 })).unwrap_err();
    assert_eq!(
        both,
        "unknown setting `stepp` (did you mean `step`?)\nstep is missing, expected an integer 1 to 1000"
    );
    let closed = COUNTER.replace("\"required\"", "\"additionalProperties\":false,\"required\"");
    assert_eq!(complete(&closed, json!({ "stepp": 3 })).unwrap_err(), both);
    let open = COUNTER.replace("\"required\"", "\"additionalProperties\":true,\"required\"");
    assert_eq!(complete(&open, json!({ "stepp": 3, "step": 1 })), Ok(json!({ "stepp": 3, "step": 1 })));
}

#[test]
fn what_is_not_given_is_filled_in_from_the_defaults() {
    let given = json!({ "name": "y", "filter": { "target": "a" }, "filters": [{ "target": "b", "inner": { "target": "c" } }] });
    assert_eq!(
        complete(ALL, given).unwrap(),
        json!({
            "step": 1, "small": null, "name": "y", "ratio": 0.5, "on": false, "level": "info",
            "filter": { "target": "a", "most": 7 },
            "filters": [{ "target": "b", "most": 7, "inner": { "target": "c", "most": 7 } }],
            "weights": {}, "pair": [1, "a"], "output": { "kind": "Console" }, "free": null,
        })
    );
}

#[test]
fn all_that_is_wrong_is_told_in_words() {
    let given = json!({
        "step": -1, "small": 256, "name": "much too long", "ratio": "half", "on": 1, "level": "warn",
        "filter": { "most": -1, "mst": 1 }, "filters": [{ "target": 1 }, 5], "weights": { "a": "x" },
        "pair": [1], "output": { "kind": "File", "path": 3 }, "free": [1],
    });
    insta::assert_snapshot!(complete(ALL, given).unwrap_err(), @r#"
    unknown setting `filter.mst` (did you mean `most`?)
    step = -1, expected at least 0
    small = 256, expected 0 to 255
    name = "much too long", expected a string of 1 to 8 characters
    ratio = "half", expected a number
    on = 1, expected true or false
    level = "warn", expected "info", "debug" or "trace"
    filter.target is missing, expected a string
    filter.most = -1, expected at least 0
    filters.0.target = 1, expected a string
    filters.1 = 5, expected a table with target
    weights.a = "x", expected an integer
    pair = [1], expected an array of 2 elements
    output.path = 3, expected a string
    "#);
    insta::assert_snapshot!(complete(ALL, json!({ "output": { "kind": "Fil" }, "pair": 1, "filter": 7 })).unwrap_err(), @r#"
    output.kind = "Fil", expected "Console" or "File"
    pair = 1, expected an array of 2 elements
    filter = 7, expected a table with target
    "#);
}

#[test]
fn a_type_without_settings_takes_none() {
    for schema in [Schema::compile(r#"{"title":"null","type":"null"}"#).unwrap(), Schema(None)] {
        assert!(schema.has_no_settings());
        assert_eq!(schema.complete(Map::new()), Ok(Value::Null));
        let given = Map::from_iter([("a".to_owned(), Value::from(1))]);
        assert_eq!(schema.complete(given), Err(vec![Invalid::NoSettings]));
        assert_eq!(schema.parse_value(&"a".parse().unwrap(), "1"), Err(Invalid::NoSettings));
    }
}

#[test]
fn what_an_operator_types_is_json_or_text_as_the_type_wants() {
    let schema = Schema::compile(ALL).unwrap();
    let typed = |path: &str, text: &str| {
        schema
            .parse_value(&path.parse().unwrap(), text)
            .map_err(|invalid| format!("{invalid} {}", invalid.hint().unwrap_or_default()))
    };
    assert_eq!(typed("step", "10"), Ok(json!(10)));
    assert_eq!(typed("name", "10"), Ok(json!("10")));
    assert_eq!(typed("name", "\"10\""), Ok(json!("10")));
    assert_eq!(typed("name", "two words"), Ok(json!("two words")));
    assert_eq!(typed("level", "debug"), Ok(json!("debug")));
    assert_eq!(typed("filter", "null"), Ok(json!(null)));
    assert_eq!(typed("filter.target", "true"), Ok(json!("true")));
    assert_eq!(typed("filters.0.most", "3"), Ok(json!(3)));
    assert_eq!(typed("weights.any", "3"), Ok(json!(3)));
    assert_eq!(typed("free.any.thing", "x"), Ok(json!("x")));
    assert_eq!(typed("free.any", "{ a = [1, 2.5], b.c = 'd' }"), Ok(json!({"a": [1, 2.5], "b": {"c": "d"}})));
    assert_eq!(typed("name", "{ a = 1 }"), Ok(json!("{ a = 1 }")));
    assert_eq!(typed("name", "[not toml"), Ok(json!("[not toml")));
    assert_eq!(typed("step", "\"ten\""), Ok(json!("ten")));
    insta::assert_snapshot!(
        [("step", "ten"), ("filter.tarjet", "x"), ("step.size", "1")].map(|(path, text)| typed(path, text).unwrap_err()).join("\n"),
        @r#"
    step = ten, expected an integer, at least 0 
    unknown setting `filter.tarjet` did you mean `target`?
    unknown setting `step.size`
    "#);
}

#[test]
fn a_text_that_is_no_schema_is_refused() {
    assert!(Schema::compile("nonsense").is_err());
    assert!(Schema::compile(r#"{"type": 5}"#).is_err());
    assert!(Schema::compile(r##"{"$ref": "https://example.com/other.json"}"##).is_err());
}

#[test]
fn a_type_that_contains_itself_is_read_as_deep_as_the_value_goes() {
    let list = r##"{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]},"n":{"type":"integer","default":1}}}"##;
    assert_eq!(
        complete(list, json!({ "next": { "next": {} } })).unwrap(),
        json!({ "next": { "next": { "n": 1 }, "n": 1 }, "n": 1 })
    );
    assert_eq!(
        complete(list, json!({ "next": { "next": { "m": 1 } } })).unwrap_err(),
        "unknown setting `next.next.m` (known are: next, n)"
    );
}
