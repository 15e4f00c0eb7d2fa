//! Durations travel as a person writes them, `1m30s`, so that every form of a spec is a spec.

/// For a duration that is always there.
pub(super) mod text {
    use crate::quantity::parse_duration;
    use crate::quantity::render_duration;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serializer;
    use std::time::Duration;

    pub(in crate::ast) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&render_duration(*value))
    }

    pub(in crate::ast) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// The same for one that may be absent.
pub(super) mod option_text {
    use crate::quantity::parse_duration;
    use crate::quantity::render_duration;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serialize;
    use serde::Serializer;
    use std::time::Duration;

    pub(in crate::ast) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(render_duration).serialize(s)
    }

    pub(in crate::ast) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
