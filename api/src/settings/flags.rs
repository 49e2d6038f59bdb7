//! The settings as flags of the command line, made from the same table.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use super::keys::{KEYS, Key, Kind};
use super::{Complaint, Loaded, Origin};

/// What the command line sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// These values, as if given as flags.
    pub fn of<'a>(values: impl IntoIterator<Item = (&'static str, &'a str)>) -> Self {
        Self(values.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
    }

    /// Takes over what the flags say; returns what is wrong with them.
    pub(super) fn apply(&self, loaded: &mut Loaded) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        for key in KEYS {
            let Some((_, value)) = self.0.iter().find(|(name, _)| *name == key.name) else {
                continue;
            };
            match (key.set)(&mut loaded.settings, value) {
                Ok(()) => {
                    loaded.origins.insert(key.name, Origin::Flag);
                }
                Err(wrong) => {
                    let message = format!("--{} {wrong}", key.flag());
                    complaints.push(Complaint { key: Some(key.name.into()), line: None, message });
                }
            }
        }
        complaints
    }
}

fn arg(key: &'static Key) -> Arg {
    let arg = Arg::new(key.name).long(key.flag()).help(key.help);
    match key.kind {
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Text | Kind::Number => {
            arg.value_name(key.example).action(ArgAction::Set).allow_hyphen_values(true)
        }
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| command.arg(arg(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |key: &'static Key| match key.kind {
            Kind::Switch => matches.get_flag(key.name).then(|| (key.name, "true".to_owned())),
            Kind::Text | Kind::Number => {
                matches.get_one::<String>(key.name).map(|value| (key.name, value.clone()))
            }
        };
        Ok(Self(KEYS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::assemble;

    fn parsed(arguments: &[&str]) -> Result<Flags, Error> {
        let command = Flags::augment_args(Command::new("serve"));
        Flags::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn flags_become_settings_and_absent_ones_change_nothing() {
        let flags = parsed(&["serve", "--workers", "2", "--insecure-behind-proxy"]).unwrap();
        assert_eq!(flags, Flags::of([("insecure_behind_proxy", "true"), ("workers", "2")]));
        assert_eq!(parsed(&["serve"]).unwrap(), Flags::default());
    }

    #[test]
    fn a_wrong_flag_is_named_as_it_is_typed() {
        let flags = parsed(&["serve", "--queue-length", "-1"]).unwrap();
        let complaints = assemble("", None, &flags).unwrap_err();
        assert_eq!(
            complaints[0].to_string(),
            "--queue-length must be a whole number from 1 to 1000000, not -1"
        );
    }

    #[test]
    fn every_setting_has_a_flag() {
        for key in KEYS {
            let flag = format!("--{}", key.flag());
            let arguments = match key.kind {
                Kind::Switch => vec!["serve", &flag],
                Kind::Text | Kind::Number => vec!["serve", &flag, key.example],
            };
            assert_eq!(parsed(&arguments).unwrap(), Flags::of([(key.name, key.example)]));
        }
    }
}
