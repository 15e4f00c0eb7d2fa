//! What zoneadm(8) and dladm(8) print for programs, as values.

use crate::guest::GuestErrorKind;

/// A zone as zoneadm(8) knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its number while it runs.
    pub(super) id: Option<String>,
    /// Its name.
    pub(super) name: String,
    /// `configured`, `incomplete`, `installed`, `ready`, `running`, `shutting_down`, `down`, `mounted`.
    pub(super) state: String,
    /// Its zonepath.
    pub(super) path: String,
    /// Its brand.
    pub(super) brand: String,
}

/// Reads `zoneadm list -cp`: fields separated by `:`, which a backslash escapes.
pub(super) fn parse_zones(text: &str) -> Result<Vec<Listed>, GuestErrorKind> {
    let mut zones = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let fields = split_escaped(line);
        let [id, name, state, path, _uuid, brand, ..] = &fields[..] else {
            return Err(GuestErrorKind::Output { tool: "zoneadm", line: line.to_owned() });
        };
        zones.push(Listed {
            id: (id != "-").then(|| id.clone()),
            name: name.clone(),
            state: state.clone(),
            path: path.clone(),
            brand: brand.clone(),
        });
    }
    Ok(zones)
}

/// Reads `dladm show-vnic -p -o link,over`.
pub(super) fn parse_vnics(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().map(split_escaped);
    rows.filter_map(|fields| match &fields[..] {
        [link, over, ..] => Some((link.clone(), over.clone())),
        _ => None,
    })
    .collect()
}

fn split_escaped(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => fields.push(String::new()),
            '\\' => fields.last_mut().into_iter().for_each(|field| field.extend(chars.next())),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zoneadm_s_list_is_read() {
        let text = "0:global:running:/::ipkg:shared:0\n3:shop-z:running:/zones/shop:1b-2:pkgsrc:excl:3\n\
                    -:old:configured:/zones/o\\:ld::lx:excl\n";
        let zones = parse_zones(text).unwrap();
        assert_eq!(zones.len(), 3);
        assert_eq!((zones[1].id.as_deref(), zones[1].state.as_str()), (Some("3"), "running"));
        assert_eq!(
            (zones[2].id.as_deref(), zones[2].path.as_str(), zones[2].brand.as_str()),
            (None, "/zones/o:ld", "lx")
        );
        assert!(parse_zones("zoneadm: failed to get zone state: x").is_err());
        assert_eq!(parse_vnics("shop_z0:net0\nb0:net1\n").len(), 2);
    }
}
