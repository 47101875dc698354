//! Words that messages of several parts share.

/// `1 row`, `2 rows`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A text of so many letters at most: its middle goes, for its end says what to do.
pub(crate) fn shortened(text: String, most: usize) -> String {
    // There are never more letters than bytes: only those of a long text are counted.
    if text.len() <= most || text.chars().count() <= most {
        return text;
    }
    let start: String = text.chars().take(most / 2).collect();
    let end: Vec<char> = text.chars().rev().take(most / 2).collect();
    format!("{start}…{}", end.into_iter().rev().collect::<String>())
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The candidate that differs from `name` in a letter or two.
pub(crate) fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Which of `known` was meant by `name`, as the end of a sentence.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    closest(name, known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

/// A path as one word of a shell.
pub(crate) fn shell(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+:@%,=".contains(char) || !char.is_ascii();
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        let check = |text: &str, most, shown: &str| assert_eq!(shortened(text.to_owned(), most), shown);
        check("short", 5, "short");
        check("ééééé", 5, "ééééé");
        check("it is too long; make it shorter", 12, "it is …horter");
        check("éééééééééé", 4, "éé…éé");
    }
}
