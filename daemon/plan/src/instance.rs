//! One process of an app, as the planner, the host and the journal name it.
//!
//! Owns the text form, which is also the name of the folder with the process's files. Decides nothing.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use std::fmt;
use std::str::FromStr;
use zed_spec::AppName;

/// What the front of an app is called after the dot.
const FRONT: &str = "front";

/// One process of an app: `api` is the first, `api.2` the second, `api.front` what clients connect to.
///
/// An app's name has no dot, so the text is never that of another app. Instances of one app sort together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The app.
    pub app: AppName,
    /// 0 is the front, 1 the first process.
    pub number: u32,
}

/// A text that names no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an instance of an app: {reason}; an instance is APP, APP.2, APP.3, ... or APP.front"
)]
pub struct InstanceError {
    text: String,
    reason: String,
}

impl Instance {
    /// A process of an app, counted from 1.
    pub fn new(app: &AppName, number: u32) -> Self {
        Self { app: app.clone(), number }
    }

    /// The first process of an app: of most apps the only one.
    pub fn first(app: &AppName) -> Self {
        Self::new(app, 1)
    }

    /// What forwards traffic to the processes of an app.
    pub fn front(app: &AppName) -> Self {
        Self::new(app, 0)
    }

    /// True for what forwards traffic and runs nothing of the app itself.
    pub fn is_front(&self) -> bool {
        self.number == 0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "{}.{FRONT}", self.app),
            1 => write!(f, "{}", self.app),
            number => write!(f, "{}.{number}", self.app),
        }
    }
}

impl FromStr for Instance {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, InstanceError> {
        let bad = |reason: String| InstanceError { text: text.to_owned(), reason };
        let (app, number) = match text.split_once('.') {
            None => (text, 1),
            Some((app, FRONT)) => (app, 0),
            Some((app, rest)) => match rest.parse::<u32>() {
                // One text for each: `api.1`, `api.02` and `api.+2` are nobody.
                Ok(number) if number > 1 && number.to_string() == rest => (app, number),
                _ => return Err(bad(format!("`{rest}` is not a number from 2 on"))),
            },
        };
        let app = AppName::parse(app).map_err(|error| bad(error.reason))?;
        Ok(Self { app, number })
    }
}

impl Serialize for Instance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instance_has_one_text() {
        let app = AppName::parse("api").unwrap();
        for (number, text) in [(0, "api.front"), (1, "api"), (2, "api.2"), (1024, "api.1024")] {
            let instance = Instance::new(&app, number);
            assert_eq!(instance.to_string(), text);
            assert_eq!(text.parse::<Instance>().unwrap(), instance);
            let json = serde_json::to_string(&instance).unwrap();
            assert_eq!(serde_json::from_str::<Instance>(&json).unwrap(), instance);
        }
        for text in
            ["", "api.", "api.1", "api.0", "api.02", "api.+2", "api.2.3", "api.back", ".2", "Api", "a/b"]
        {
            assert!(text.parse::<Instance>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn instances_of_an_app_sort_together() {
        let instance = |text: &str| text.parse::<Instance>().unwrap();
        let mut all: Vec<Instance> = ["a-b", "a.10", "a.2", "b", "a", "a.front"].map(instance).into();
        all.sort();
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["a.front", "a", "a.2", "a.10", "a-b", "b"]);
    }
}
