//! A scenario's text as a tree whose every node knows where it stands.
//!
//! It is read from TOML (a file) or from JSON (the header of a trace), so that both go through the same checks.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands in the file, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) kind: Kind,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Vec<(Node, Node)>),
    /// A date or a float, which no scenario has.
    Other,
}

impl Kind {
    /// What it is, in words.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Kind::Text(_) => "a string",
            Kind::Integer(_) => "an integer",
            Kind::Boolean(_) => "true or false",
            Kind::List(_) => "an array",
            Kind::Table(_) => "a table",
            Kind::Other => "a number with a fraction or a date",
        }
    }
}

/// Reads TOML; the error has the message and, where there is one, its place.
pub(super) fn from_toml(text: &str) -> Result<Node, (String, Option<Range<usize>>)> {
    let table = DeTable::parse(text).map_err(|error| (error.message().to_owned(), error.span()))?;
    let span = table.span();
    Ok(Node {
        span,
        kind: table_kind(table.get_ref()),
    })
}

fn table_kind(table: &DeTable<'_>) -> Kind {
    let mut rows: Vec<(Node, Node)> = table
        .iter()
        .map(|(key, value)| {
            let key = Node {
                span: key.span(),
                kind: Kind::Text(key.get_ref().to_string()),
            };
            (key, node(value))
        })
        .collect();
    rows.sort_by_key(|(key, _)| key.span.start);
    Kind::Table(rows)
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            i64::from_str_radix(&digits, integer.radix()).map_or(Kind::Other, Kind::Integer)
        }
        DeValue::Boolean(boolean) => Kind::Boolean(*boolean),
        DeValue::Array(list) => Kind::List(list.iter().map(node).collect()),
        DeValue::Table(table) => table_kind(table),
        DeValue::Float(_) | DeValue::Datetime(_) => Kind::Other,
    };
    Node {
        span: value.span(),
        kind,
    }
}

/// Reads JSON, which has no places.
pub(super) fn from_json(value: &Value) -> Node {
    let kind = match value {
        Value::String(text) => Kind::Text(text.clone()),
        Value::Bool(boolean) => Kind::Boolean(*boolean),
        Value::Number(number) => number.as_i64().map_or(Kind::Other, Kind::Integer),
        Value::Array(list) => Kind::List(list.iter().map(from_json).collect()),
        Value::Object(map) => Kind::Table(
            map.iter()
                .map(|(key, value)| {
                    (
                        Node {
                            span: 0..0,
                            kind: Kind::Text(key.clone()),
                        },
                        from_json(value),
                    )
                })
                .collect(),
        ),
        Value::Null => Kind::Other,
    };
    Node { span: 0..0, kind }
}

/// The tree as JSON, for the header of a trace.
pub(super) fn to_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Text(text) => Value::from(text.clone()),
        Kind::Integer(integer) => Value::from(*integer),
        Kind::Boolean(boolean) => Value::from(*boolean),
        Kind::List(list) => Value::from(list.iter().map(to_json).collect::<Vec<_>>()),
        Kind::Table(rows) => Value::Object(
            rows.iter()
                .map(|(key, value)| {
                    let key = match &key.kind {
                        Kind::Text(text) => text.clone(),
                        _ => String::new(),
                    };
                    (key, to_json(value))
                })
                .collect(),
        ),
        Kind::Other => Value::Null,
    }
}
