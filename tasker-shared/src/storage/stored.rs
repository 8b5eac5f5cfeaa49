//! JSON as PostgreSQL holds it: it knows larger numbers and deeper nesting than programs read.

use serde_json::{Value, json, value::RawValue};
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef},
    types::Json,
};

/// A JSON value of a table. One that cannot be read is kept as it stands, so that it can be shown and moved.
#[derive(Debug, Clone)]
pub enum Stored {
    /// The value.
    Read(Value),
    /// A value beyond what programs read, such as the number `1e400`.
    Unread {
        /// Its text.
        text: Box<RawValue>,
        /// What is wrong with it, and where.
        why: String,
    },
}

impl Stored {
    /// The value.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(&self) -> Result<&Value, &str> {
        match self {
            Self::Read(value) => Ok(value),
            Self::Unread { why, .. } => Err(why),
        }
    }
}

impl From<Value> for Stored {
    fn from(value: Value) -> Self {
        Self::Read(value)
    }
}

impl From<Stored> for Value {
    /// As people are shown it: one that cannot be read as its text, with the reason.
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Read(value) => value,
            Stored::Unread { text, why } => json!({ "unreadable": why, "text": text.get() }),
        }
    }
}

impl Type<Postgres> for Stored {
    fn type_info() -> PgTypeInfo {
        <Json<Value> as Type<Postgres>>::type_info()
    }

    fn compatible(info: &PgTypeInfo) -> bool {
        <Json<Value> as Type<Postgres>>::compatible(info)
    }
}

impl PgHasArrayType for Stored {
    fn array_type_info() -> PgTypeInfo {
        <Json<Value> as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Stored {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match self {
            Self::Read(value) => Json(value).encode_by_ref(buffer),
            Self::Unread { text, .. } => Json(text).encode_by_ref(buffer),
        }
    }
}

impl<'r> Decode<'r, Postgres> for Stored {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match <Json<Value> as Decode<'r, Postgres>>::decode(value.clone()) {
            Ok(Json(value)) => Ok(Self::Read(value)),
            Err(why) => {
                let Json(text) = <Json<Box<RawValue>> as Decode<'r, Postgres>>::decode(value)?;
                Ok(Self::Unread { text, why: why.to_string() })
            }
        }
    }
}
