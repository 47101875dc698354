//! Names of nodes.
//!
//! Stamps name nodes by an index, and the same node may have another index elsewhere. Only names may decide.

/// The name of a node, comparable as every node compares it: numbers before texts, numbers by their value, texts by
/// their bytes. Names of nodes are decimal numbers of any length.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// How many digits, and which; without zeros in front, so that this is the order of the values.
    Number(usize, String),
    Text(String),
}

impl From<&str> for Node {
    fn from(name: &str) -> Self {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::Text(name.to_owned());
        }
        let digits = name.trim_start_matches('0');
        Self::Number(digits.len(), digits.to_owned())
    }
}

impl Node {
    /// The nodes of a list, in its order.
    pub fn all(names: &[String]) -> Vec<Self> {
        names.iter().map(|name| name.as_str().into()).collect()
    }
}
