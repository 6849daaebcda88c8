//! `--mount KEY=VALUE,…`, in the manner that Docker's users know.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What to mount before the command starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// `fuse`, `fuse.NAME`, `overlay`, `vufs` or `bind`
    pub kind: String,
    /// The FUSE program; for `fuse.NAME` it is NAME.
    pub program: Option<String>,
    pub source: Option<String>,
    pub target: String,
    pub readonly: bool,
    /// Options for the program, separated by commas.
    pub options: Vec<String>,
}

impl FromStr for MountSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<MountSpec, String> {
        let mut spec = MountSpec::default();
        for word in words(text)? {
            let (key, value) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(key, value)| (key, Some(value.to_owned())));
            let given = || {
                let value = value.clone().filter(|value| !value.is_empty());
                value.ok_or_else(|| format!("`{key}` needs a value: {key}=…"))
            };
            match key {
                "type" => spec.kind = given()?,
                "program" => spec.program = Some(given()?),
                "source" | "src" => spec.source = Some(given()?),
                "target" | "destination" | "dst" => spec.target = given()?,
                "options" | "opt" | "o" => spec.options.push(given()?),
                "lowerdir" | "upperdir" | "workdir" => spec.options.push(format!("{key}={}", given()?)),
                "readonly" | "ro" => {
                    spec.readonly = match value.as_deref() {
                        None | Some("true" | "1") => true,
                        Some("false" | "0") => false,
                        Some(other) => return Err(format!("`{key}` is true or false, not `{other}`")),
                    }
                }
                other => {
                    let known = "type, program, source, target, readonly, options, lowerdir, upperdir, workdir";
                    return Err(format!("`{other}` is not known; a mount takes {known}"));
                }
            }
        }
        spec.check()?;
        Ok(spec)
    }
}

/// The fields of a line of comma-separated values (RFC 4180), as Docker reads them: one that holds a comma stands in
/// double quotes, and a double quote within is doubled.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (word, more) = rest
                .split_once(',')
                .map_or((rest, None), |(word, more)| (word, Some(more)));
            words.extend((!word.is_empty()).then(|| word.to_owned()));
            match more {
                Some(more) => rest = more,
                None => return Ok(words),
            }
            continue;
        };
        let mut word = String::new();
        rest = quoted;
        loop {
            let (part, more) = rest.split_once('"').ok_or("a double quote is not closed")?;
            word.push_str(part);
            rest = more;
            match rest.strip_prefix('"') {
                Some(more) => {
                    word.push('"');
                    rest = more;
                }
                None => break,
            }
        }
        words.push(word);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(words),
            None => return Err(format!("a comma is missing before `{rest}`")),
        }
    }
}

impl MountSpec {
    /// What is missing or unknown, in one line.
    pub fn check(&self) -> Result<(), String> {
        if self.target.is_empty() {
            return Err("a mount needs target=DIRECTORY".into());
        }
        match self.kind.as_str() {
            "" => Err("a mount needs a type: type=fuse or type=bind".into()),
            "bind" | "vufs" if self.source.is_none() => Err(format!("type={} needs source=PATH", self.kind)),
            "fuse" if self.program.is_none() => {
                Err("type=fuse needs program=PROGRAM (or use type=fuse.PROGRAM)".into())
            }
            "overlay" if !self.options.iter().any(|option| option.starts_with("lowerdir=")) => {
                Err("type=overlay needs lowerdir=DIR[:DIR…]".into())
            }
            "bind" | "fuse" | "overlay" | "vufs" => Ok(()),
            kind if kind.strip_prefix("fuse.").is_some_and(|name| !name.is_empty()) => Ok(()),
            other => Err(format!(
                "type `{other}` is not known; it is fuse, fuse.PROGRAM, overlay, vufs or bind"
            )),
        }
    }

    /// The FUSE program.
    pub fn program(&self) -> &str {
        let named = self.kind.strip_prefix("fuse.");
        named.or(self.program.as_deref()).unwrap_or_default()
    }

    /// The first lower directory of an overlay.
    pub fn first_layer(&self) -> Option<&str> {
        let layers = self
            .options
            .iter()
            .find_map(|option| option.strip_prefix("lowerdir="))?;
        layers.split(':').next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_key() {
        let spec: MountSpec = "type=fuse,program=squashfuse,src=image.sqsh,dst=/mnt,ro,opt=uid=0"
            .parse()
            .unwrap();
        assert_eq!(spec.program.as_deref(), Some("squashfuse"));
        assert!(spec.readonly);
        assert_eq!(spec.options, ["uid=0"]);
        assert_eq!(spec.program(), "squashfuse");
    }

    #[test]
    fn commas_stand_in_quotes() {
        let spec: MountSpec = r#"type=fuse.sshfs,"source=h:/a,b",target=/m,"o=a,b=""c""",o=d,ro=false"#
            .parse()
            .unwrap();
        assert_eq!(spec.source.as_deref(), Some("h:/a,b"));
        assert_eq!(spec.options, [r#"a,b="c""#, "d"]);
        assert_eq!((spec.program(), spec.readonly), ("sshfs", false));
    }

    #[test]
    fn layers_are_options() {
        let overlay: MountSpec = "type=overlay,lowerdir=a:b,upperdir=c,workdir=d,target=/"
            .parse()
            .unwrap();
        assert_eq!(overlay.options, ["lowerdir=a:b", "upperdir=c", "workdir=d"]);
        assert_eq!(overlay.first_layer(), Some("a"));
    }

    #[test]
    fn says_what_is_missing() {
        let error = |text: &str| text.parse::<MountSpec>().unwrap_err();
        assert!(error("type=fuse,target=/m").contains("program="));
        assert!(error("type=bind,target=/m").contains("source="));
        assert!(error("type=vufs,target=/m").contains("source="));
        assert!(error("type=overlay,target=/m").contains("lowerdir="));
        assert!(error("target=/m").contains("type="));
        assert!(error("type=nfs,target=/m").contains("`nfs`"));
        assert!(error("type=fuse.x,target").contains("needs a value"));
        assert!(error("type=fuse.x,target=").contains("needs a value"));
        assert!(error("type=fuse.x,target=/m,colour=red").contains("`colour`"));
        assert!(error("type=fuse.x,target=/m,ro=maybe").contains("true or false"));
        assert!(error(r#"type=fuse.x,"target=/m"#).contains("not closed"));
        assert!(error(r#""type=fuse.x"y,target=/m"#).contains("comma is missing"));
    }
}
