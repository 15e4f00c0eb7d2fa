//! Names that cross every boundary as their own types, parsed once at the edge.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use std::fmt;

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {reason}")]
pub struct NameError {
    /// What the text should have been, for instance `dataset name`.
    pub kind: &'static str,
    /// The offending text.
    pub text: String,
    /// The rule it breaks.
    pub reason: String,
}

fn bad(kind: &'static str, text: &str, reason: impl Into<String>) -> NameError {
    NameError { kind, text: text.to_owned(), reason: reason.into() }
}

/// `[a-z0-9][a-z0-9-]*`, at most 63 bytes: names that also appear as a path component under `/zed`.
fn check_slug(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(bad(kind, text, "it is empty"));
    }
    if text.len() > 63 {
        return Err(bad(kind, text, "it is longer than 63 bytes"));
    }
    if text.starts_with('-') {
        return Err(bad(kind, text, "it must start with a letter or a digit"));
    }
    match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        Some(c) => Err(bad(kind, text, format!("`{c}` is not one of a-z, 0-9 and `-`"))),
        None => Ok(()),
    }
}

/// A dataset's path below the store's root: components of `[A-Za-z0-9][A-Za-z0-9_.:-]*` joined by `/`.
fn check_dataset(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(bad(kind, text, "it is empty"));
    }
    // ZFS allows 255 bytes for pool, path and snapshot together; this leaves room for both ends.
    if text.len() > 150 {
        return Err(bad(kind, text, "it is longer than 150 bytes"));
    }
    for part in text.split('/') {
        if part.is_empty() {
            return Err(bad(kind, text, "it has an empty component (a leading, trailing or double `/`)"));
        }
        if part == "." || part == ".." {
            return Err(bad(kind, text, format!("the component `{part}` is not allowed")));
        }
        if !part.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(bad(
                kind,
                text,
                format!("the component `{part}` must start with a letter or a digit"),
            ));
        }
        if let Some(c) =
            part.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | ':' | '-'))
        {
            return Err(bad(kind, text, format!("`{c}` is not one of A-Z, a-z, 0-9, `_`, `.`, `:` and `-`")));
        }
    }
    Ok(())
}

/// A slot's name: components like a dataset's, `db/password`.
fn check_slot(kind: &'static str, text: &str) -> Result<(), NameError> {
    check_dataset(kind, text)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What this kind of name is called in messages.
            pub const KIND: &'static str = $kind;

            /// Checks the text and makes the name of it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $check($kind, text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(/// The name of a deploy: its spec's file name without `.ron`.
    DeployName, "deploy name", check_slug);
name!(/// The name of an app on this host.
    AppName, "app name", check_slug);
name!(/// The name of a host.
    HostName, "host name", check_host);
name!(/// The name of a jail.
    JailName, "jail name", check_jail);
name!(/// The name of a zone.
    ZoneName, "zone name", check_slug);
name!(/// The name of a model.
    ModelName, "model name", check_slug);
name!(/// The name of a job.
    JobName, "job name", check_slug);
name!(/// A dataset's path below the root of the store, without the pool.
    DatasetPath, "dataset name", check_dataset);
name!(/// The name of a secret slot.
    SlotName, "secret slot name", check_slot);

/// A jail's name is a slug that no tool takes for something else: jail(8) and jexec(8) take digits for a jail's
/// number, bastille(8) takes `all` for every jail.
fn check_jail(kind: &'static str, text: &str) -> Result<(), NameError> {
    check_slug(kind, text)?;
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(kind, text, "jail(8) takes digits alone for a jail's number"));
    }
    if text == "all" {
        return Err(bad(kind, text, "bastille(8) takes `all` for every jail"));
    }
    Ok(())
}

/// Host names are a slug, or several joined by dots.
fn check_host(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.len() > 253 {
        return Err(bad(kind, text, "it is longer than 253 bytes"));
    }
    text.split('.')
        .try_for_each(|part| check_slug(kind, part).map_err(|e| NameError { text: text.to_owned(), ..e }))
}

impl DatasetPath {
    /// The path of the dataset above, or `None` for one directly below the store's root.
    pub fn parent(&self) -> Option<DatasetPath> {
        self.0.rsplit_once('/').map(|(parent, _)| DatasetPath(parent.to_owned()))
    }

    /// A child of this dataset.
    pub fn join(&self, child: &str) -> Result<DatasetPath, NameError> {
        DatasetPath::parse(&format!("{self}/{child}"))
    }

    /// True for `other` itself and everything below it.
    pub fn is_in(&self, other: &DatasetPath) -> bool {
        self.0.strip_prefix(other.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(parse: fn(&str) -> Result<T, NameError>, good: &[&str], bad: &[(&str, &str)]) {
        for text in good {
            assert!(parse(text).is_ok(), "{text}");
        }
        for (text, word) in bad {
            let Err(error) = parse(text) else { panic!("accepted: {text:?}") };
            assert!(error.to_string().contains(word), "{text:?}: `{error}` lacks `{word}`");
        }
    }

    #[test]
    fn names_keep_their_rules() {
        let long = "a".repeat(64);
        check(
            AppName::parse,
            &["a", "0", "my-app-2", "a-", &long[1..]],
            &[
                ("", "empty"),
                ("-a", "start with"),
                ("A", "`A`"),
                ("a.b", "`.`"),
                ("a/b", "`/`"),
                ("a_b", "`_`"),
                ("..", "`.`"),
                ("\u{e9}", "a-z"),
                (&long, "63 bytes"),
            ],
        );
        check(
            JailName::parse,
            &["a", "10a", "all-in-one"],
            &[("10", "number"), ("all", "every jail"), ("a.b", "`.`")],
        );
        check(
            DatasetPath::parse,
            &["apps/web", "A/b_c.d:e-f", "0", &"a".repeat(150)],
            &[
                ("", "empty"),
                ("/a", "empty component"),
                ("a/", "empty component"),
                ("a//b", "empty component"),
                ("a/../b", "`..`"),
                (".", "`.`"),
                ("a/-b", "start with"),
                ("a/.b", "start with"),
                ("a@b", "`@`"),
                ("a b", "` `"),
                ("a#b", "`#`"),
                ("a%b", "`%`"),
                (&"a".repeat(151), "150 bytes"),
            ],
        );
        check(
            HostName::parse,
            &["web1", "web1.example", "10"],
            &[("", "empty"), ("a..b", "empty"), (".a", "empty"), ("A.b", "`A`"), (&"a.".repeat(127), "253")],
        );
    }

    #[test]
    fn datasets_know_what_is_above_and_below() {
        let path = |text: &str| DatasetPath::parse(text).unwrap();
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(path("a").join("b"), Ok(path("a/b")));
        assert!(path("a").join("..").is_err());
        for (below, above, expect) in
            [("a/b", "a", true), ("a", "a", true), ("ab", "a", false), ("a", "a/b", false)]
        {
            assert_eq!(path(below).is_in(&path(above)), expect, "{below} in {above}");
        }
    }

    #[test]
    fn names_are_checked_when_they_are_read() {
        assert!(serde_json::from_str::<DatasetPath>("\"a/../b\"").is_err());
        assert_eq!(serde_json::to_string(&AppName::parse("web").unwrap()).unwrap(), "\"web\"");
    }
}
