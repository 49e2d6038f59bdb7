//! The TOML file: which line says what, and what is wrong with it.

use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key, Kind, find};
use super::{Complaint, Loaded, Origin};

/// A misspelt key this alike to a real one is taken for it, on a scale of 0 to 1.
const ALIKE: f64 = 0.75;

/// Takes over what `text` says; returns what is wrong with it.
pub(super) fn apply(text: &str, loaded: &mut Loaded) -> Vec<Complaint> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return errors.iter().map(|error| not_toml(text, error)).collect();
    }
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut complaints = Vec::new();
    for (name, value) in entries {
        let line = line_of(text, name.span().start);
        match take(name.get_ref(), value.get_ref(), loaded) {
            Ok(key) => {
                loaded.origins.insert(key.name, Origin::File(line));
            }
            Err(message) => {
                let key = Some(name.get_ref().to_string());
                complaints.push(Complaint { key, line: Some(line), message });
            }
        }
    }
    complaints
}

fn take(name: &str, value: &DeValue<'_>, loaded: &mut Loaded) -> Result<&'static Key, String> {
    let key = find(name).ok_or_else(|| unknown(name))?;
    let text = match (key.kind, value) {
        (Kind::Text, DeValue::String(text)) => text.to_string(),
        (Kind::Number, DeValue::Integer(number)) => decimal(number),
        (Kind::Switch, DeValue::Boolean(on)) => on.to_string(),
        (Kind::Text | Kind::Number | Kind::Switch, value) => {
            let wanted = match key.kind {
                Kind::Text => "text in quotes",
                Kind::Number => "a whole number without quotes",
                Kind::Switch => "true or false without quotes",
            };
            let example = key.line(key.example);
            let found = value.type_str();
            return Err(format!("{name} must be {wanted}, such as {example}, not a TOML {found}"));
        }
    };
    (key.set)(&mut loaded.settings, &text).map_err(|wrong| format!("{name} {wrong}"))?;
    Ok(key)
}

/// TOML also allows `0x` and the like, and underscores (which the parser drops).
fn decimal(number: &toml::de::DeInteger<'_>) -> String {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string())
}

fn unknown(name: &str) -> String {
    let likeness = |key: &Key| strsim::jaro_winkler(key.name, &name.replace('-', "_"));
    let nearest = KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|key| likeness(key) >= ALIKE) {
        Some(key) => format!("there is no setting {name:?}; did you mean {:?}?", key.name),
        None => {
            let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            format!("there is no setting {name:?}; there are {}", names.join(", "))
        }
    }
}

fn not_toml(text: &str, error: &toml::de::Error) -> Complaint {
    let line = error.span().map(|span| line_of(text, span.start));
    let message = format!("not TOML: {}", error.message().trim().replace('\n', ", "));
    Complaint { key: None, line, message }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use crate::settings::{Flags, Settings, assemble};

    fn complaints(text: &str) -> Vec<String> {
        let complaints = assemble(text, None, &Flags::default()).unwrap_err();
        complaints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_complaints_come_at_once_in_the_order_of_the_file() {
        let text = "workers = 0\nlisen = \"127.0.0.1:1\"\n\nqueue_length = \"many\"\nsled = 1\n";
        let found = complaints(text);
        assert_eq!(found[0], "line 1: workers must be a whole number from 1 to 1024, not 0");
        assert_eq!(found[1], "line 2: there is no setting \"lisen\"; did you mean \"listen\"?");
        assert_eq!(
            found[2],
            "line 4: queue_length must be a whole number without quotes, such as \
             queue_length = 4096, not a TOML string"
        );
        assert!(
            found[3].starts_with("line 5: there is no setting \"sled\"; there are data, listen")
        );
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_line() {
        let found = complaints("workers = 1\nlisten = \"127");
        assert!(found[0].starts_with("line 2: not TOML: "), "{found:?}");
        let found = complaints("workers = 1\nworkers = 2\n");
        assert!(found[0].starts_with("line 2: not TOML: "), "{found:?}");
    }

    #[test]
    fn a_table_is_no_setting() {
        let found = complaints("[listen]\nport = 1\n");
        assert!(found[0].starts_with("line 1: listen must be text in quotes"), "{found:?}");
        assert!(complaints("[server]\n")[0].contains("no setting \"server\""));
    }

    #[test]
    fn numbers_may_be_written_as_toml_allows() {
        for text in ["request_bytes_max = 16_384", "request_bytes_max = 0x4000"] {
            let loaded = assemble(text, None, &Flags::default()).unwrap();
            assert_eq!(loaded.settings.request_bytes_max, 16_384);
        }
        let huge = complaints("queue_length = 99999999999999999999");
        assert!(huge[0].contains("must be a whole number"), "{huge:?}");
    }

    #[test]
    fn every_wrong_value_names_its_key_and_what_would_be_right() {
        for (line, part) in [
            ("listen = \"localhost\"", "listen must be an IP address and a port"),
            ("log_format = \"xml\"", "log_format must be human or json, not \"xml\""),
            ("log_filter = \"a=b=c\"", "log_filter must be a level"),
            ("insecure_behind_proxy = \"yes\"", "must be true or false without quotes"),
            ("data = \"\"", "data must not be empty"),
            ("workers = -1", "workers must be a whole number from 1 to 1024, not -1"),
            ("workers = 1.5", "workers must be a whole number without quotes"),
        ] {
            assert!(complaints(line)[0].contains(part), "{line}: {:?}", complaints(line));
        }
        assert_eq!(Settings::default().workers, Settings::default().workers.max(1));
    }
}
