//! Patterns of names of tables.

use globset::{Error, Glob, GlobMatcher};

/// A glob over names of tables, which are compared as SQLite compares them: case matters in no ASCII letter.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// In lower case.
    text: String,
    /// Nothing for a plain name. Most patterns are one, and to compile a glob takes longer than to read a schema.
    glob: Option<GlobMatcher>,
}

impl Pattern {
    /// The pattern of a text.
    ///
    /// # Errors
    /// When it is no glob.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.to_ascii_lowercase();
        let is_name = !text.contains(['*', '?', '[', ']', '{', '}', '\\', '!']);
        let glob = if is_name { None } else { Some(Glob::new(&text)?.compile_matcher()) };
        Ok(Self { text, glob })
    }

    /// What it was made of, in lower case.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a pattern of this name.
    #[must_use]
    pub fn is_match(&self, table: &str) -> bool {
        match &self.glob {
            None => self.text.eq_ignore_ascii_case(table),
            Some(glob) => glob.is_match(table.to_ascii_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, table: &str, expected: bool) {
        assert_eq!(Pattern::new(pattern).unwrap().is_match(table), expected, "{pattern} of {table}");
    }

    #[test]
    fn a_name_is_a_pattern_of_itself() {
        check("Stock", "sTOCK", true);
        check("stock", "stocks", false);
        check("Ä", "ä", false);
        check("a b.c", "A B.C", true);
    }

    #[test]
    fn globs_are_globs() {
        check("*", "anything/at all", true);
        check("stock_*", "STOCK_1", true);
        check("STOCK_[A-C]", "stock_b", true);
        check("s?ck", "stock", false);
        check("{a,B}", "b", true);
        check(&globset::escape("a*B"), "A*b", true);
        check(&globset::escape("a*B"), "axb", false);
    }

    #[test]
    fn what_is_no_glob_is_none() {
        assert!(Pattern::new("[a").is_err());
        assert!(Pattern::new("{a").is_err());
    }
}
