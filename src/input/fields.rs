//! The fields of one body or query, taken one by one; what is wrong with them is collected.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Error, Finding, Result};

/// A type that is made of the fields of a request.
///
/// A field that does not fit gives a placeholder, and the whole is refused once all are read.
pub(crate) trait Read: Sized {
    /// Takes the fields.
    fn read(fields: &mut Fields) -> Self;
}

/// The fields, and what is wrong with those that were taken.
pub(crate) struct Fields {
    place: &'static str,
    values: Map<String, Value>,
    findings: Vec<Finding>,
}

/// What is to become of a text.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Edit {
    /// It stays as it is.
    Keep,
    /// There is none any more.
    Clear,
    /// It is this one.
    Set(String),
}

impl Edit {
    /// The new text, if there is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Set(text) => Some(text),
            Self::Keep | Self::Clear => None,
        }
    }
}

impl Fields {
    pub(super) fn of_body(value: Value) -> Result<Self> {
        match value {
            Value::Object(values) => Ok(Self { place: "body", values, findings: Vec::new() }),
            _ => Err(Error::invalid("body", "body", "must be an object")),
        }
    }

    /// Of `a=b&c=d`; the last of a name counts, and an empty value not at all.
    pub(super) fn of_pairs(place: &'static str, text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text).filter(|(_, value)| !value.is_empty());
        let values =
            pairs.map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())));
        Self { place, values: values.collect(), findings: Vec::new() }
    }

    /// Reads it all.
    ///
    /// # Errors
    ///
    /// Everything that does not fit.
    pub(super) fn read<T: Read>(mut self) -> Result<T> {
        let read = T::read(&mut self);
        if self.findings.is_empty() { Ok(read) } else { Err(Error::Invalid(self.findings)) }
    }

    /// An object in the object; what it lacks counts only if it is there.
    pub(crate) fn object<T: Read>(&mut self, field: &'static str) -> T {
        let (values, refusal) = match self.values.remove(field) {
            Some(Value::Object(values)) => (values, None),
            None | Some(Value::Null) => (Map::new(), Some(("missing", BLANK))),
            Some(_) => (Map::new(), Some(("type", "must be an object"))),
        };
        let mut inner = Self { place: self.place, values, findings: Vec::new() };
        let read = T::read(&mut inner);
        match refusal {
            Some((kind, text)) => self.find(kind, field, text),
            None => self.findings.append(&mut inner.findings),
        }
        read
    }

    /// Whether a field is there, though it may be null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.values.contains_key(field)
    }

    /// Says that a field does not fit.
    pub(crate) fn refuse(&mut self, field: &'static str, text: impl Into<String>) {
        self.find("value", field, text);
    }

    /// A text that must be there and say something; of so many characters.
    pub(crate) fn text(&mut self, field: &'static str, length: RangeInclusive<usize>) -> String {
        match self.values.remove(field) {
            None | Some(Value::Null) => {
                self.find("missing", field, BLANK);
                String::new()
            }
            Some(value) => self.checked_text(field, value, length),
        }
    }

    /// The same where absence keeps what there is; null is no text.
    pub(crate) fn changed_text(
        &mut self,
        field: &'static str,
        length: RangeInclusive<usize>,
    ) -> Option<String> {
        self.has(field).then(|| self.text(field, length))
    }

    /// A text that may be taken away, by null or an empty one.
    pub(crate) fn edited_text(&mut self, field: &'static str, longest: usize) -> Edit {
        match self.values.remove(field) {
            None => Edit::Keep,
            Some(Value::Null) => Edit::Clear,
            Some(Value::String(text)) if text.is_empty() => Edit::Clear,
            Some(Value::String(text)) => Edit::Set(self.bounded(field, text, 0..=longest)),
            Some(_) => {
                self.find("type", field, "must be a string");
                Edit::Keep
            }
        }
    }

    /// A text, whatever it says; absent, null or empty it gives `None`.
    pub(crate) fn any_text(&mut self, field: &'static str, longest: usize) -> Option<String> {
        match self.edited_text(field, longest) {
            Edit::Set(text) => Some(text),
            Edit::Keep | Edit::Clear => None,
        }
    }

    /// A list of texts, each of so many characters.
    pub(crate) fn texts(
        &mut self,
        field: &'static str,
        most: usize,
        length: RangeInclusive<usize>,
    ) -> Option<Vec<String>> {
        let items = match self.values.remove(field)? {
            Value::Null => {
                self.find("value", field, BLANK);
                return None;
            }
            Value::Array(items) => items,
            _ => Vec::from([Value::Null]),
        };
        if items.len() > most {
            self.refuse(field, format!("is too long (maximum is {most} items)"));
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            let Value::String(text) = item else {
                self.find("type", field, "must be a list of strings");
                return None;
            };
            let found = self.findings.len();
            texts.push(self.checked_text(field, Value::String(text), length.clone()));
            if self.findings.len() > found {
                return None;
            }
        }
        Some(texts)
    }

    /// A whole number; absent or null gives `None`.
    pub(crate) fn integer(
        &mut self,
        field: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let range = i128::from(*range.start())..=i128::from(*range.end());
        self.whole(field, &range).and_then(|number| number.try_into().ok())
    }

    /// The same of more bits.
    pub(crate) fn unsigned(
        &mut self,
        field: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let range = i128::from(*range.start())..=i128::from(*range.end());
        self.whole(field, &range).and_then(|number| number.try_into().ok())
    }

    /// A whole number that must be there.
    pub(crate) fn required_integer(
        &mut self,
        field: &'static str,
        range: RangeInclusive<i64>,
    ) -> i64 {
        if self.values.get(field).is_none_or(Value::is_null) {
            self.find("missing", field, BLANK);
            return 0;
        }
        self.integer(field, range).unwrap_or_default()
    }

    /// The number of an object, which must be there.
    pub(crate) fn id(&mut self, field: &'static str) -> i64 {
        if matches!(self.values.get(field), None | Some(Value::Null)) {
            self.find("missing", field, BLANK);
        }
        self.integer(field, i64::MIN..=i64::MAX).unwrap_or_default()
    }

    /// A number; absent or null gives `None`.
    pub(crate) fn number(
        &mut self,
        field: &'static str,
        range: RangeInclusive<f64>,
    ) -> Option<f64> {
        let number = match self.values.remove(field)? {
            Value::Null => return None,
            Value::Number(number) => number.as_f64(),
            Value::String(text) if self.is_text_only() => text.parse().ok(),
            _ => None,
        };
        match number {
            None => self.find("type", field, "must be a number"),
            Some(number) if range.contains(&number) => return Some(number),
            Some(_) => {
                let (least, most) = (range.start(), range.end());
                self.refuse(field, format!("must be a number from {least} to {most}"));
            }
        }
        None
    }

    /// Yes or no; absent or null gives `None`.
    pub(crate) fn boolean(&mut self, field: &'static str) -> Option<bool> {
        let yes = match self.values.remove(field)? {
            Value::Null => return None,
            Value::Bool(yes) => Some(yes),
            Value::String(text) if self.is_text_only() => text.parse().ok(),
            _ => None,
        };
        if yes.is_none() {
            self.find("type", field, "must be true or false");
        }
        yes
    }

    fn whole(&mut self, field: &'static str, range: &RangeInclusive<i128>) -> Option<i128> {
        let number = match self.values.remove(field)? {
            Value::Null => return None,
            Value::Number(number) => number.as_i128(),
            Value::String(text) if self.is_text_only() => text.parse().ok(),
            _ => None,
        };
        // Beyond 64 bits JSON has floating numbers only.
        match number.filter(|number| (i64::MIN.into()..=u64::MAX.into()).contains(number)) {
            None => self.find("type", field, "must be an integer"),
            Some(number) if number < *range.start() => {
                self.refuse(field, format!("must be at least {}", range.start()));
            }
            Some(number) if number > *range.end() => {
                self.refuse(field, format!("must be at most {}", range.end()));
            }
            Some(number) => return Some(number),
        }
        None
    }

    fn checked_text(
        &mut self,
        field: &'static str,
        value: Value,
        length: RangeInclusive<usize>,
    ) -> String {
        match value {
            Value::String(text) if text.trim().is_empty() && *length.start() > 0 => {
                self.find("value", field, BLANK);
                String::new()
            }
            Value::String(text) => self.bounded(field, text, length),
            _ => {
                self.find("type", field, "must be a string");
                String::new()
            }
        }
    }

    fn bounded(
        &mut self,
        field: &'static str,
        text: String,
        length: RangeInclusive<usize>,
    ) -> String {
        let (least, most) = (*length.start(), *length.end());
        match text.chars().count() {
            // PostgreSQL keeps none.
            _ if text.contains('\0') => self.refuse(field, "is invalid"),
            count if count < least => {
                self.refuse(field, format!("is too short (minimum is {least} characters)"));
            }
            count if count > most => {
                self.refuse(field, format!("is too long (maximum is {most} characters)"));
            }
            _ => (),
        }
        text
    }

    /// Whether numbers come as texts here.
    fn is_text_only(&self) -> bool {
        self.place == "query"
    }

    fn find(&mut self, kind: &'static str, field: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { kind, place: self.place, field, text: text.into().into() });
    }
}

const BLANK: &str = "can't be blank";
