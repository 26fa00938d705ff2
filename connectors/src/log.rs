//! Records of an ingest log ([`pelton::log`]) as JSON.
//!
//! ```no_run
//! use pelton::{Job, log};
//! use pelton_connectors::{lines, log as formats};
//!
//! #[derive(serde::Deserialize, serde::Serialize)]
//! struct Order { product: u32, cents: u64 }
//!
//! let job = Job::new("orders");
//! job.source(log::source("log/orders", formats::json::<Order>()))
//!    .sink(lines::stdout(lines::json()));
//! ```

use pelton::log::Codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;

/// Each record a JSON value of type `T`, by serde.
pub fn json<T>() -> Json<T> {
    Json(PhantomData)
}

/// See [`json`].
pub struct Json<T>(PhantomData<fn(T) -> T>);

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        json()
    }
}

impl<T> fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Codec<T> for Json<T> {
    fn encode(&mut self, record: &T, to: &mut Vec<u8>) -> Result<(), String> {
        serde_json::to_writer(to, record)
            .map_err(|e| format!("a record cannot be written as JSON: {e}"))
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<T, String> {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }
}
