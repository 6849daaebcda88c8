//! `--mount KEY=VALUE,…`, in the manner that Docker's users know.

use std::str::FromStr;

/// What to mount before the command starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountSpec {
    /// `fuse`, `fuse.NAME`, `overlay` or `bind`
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
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (key, value) = word
                .split_once('=')
                .map_or((word, None), |(key, value)| (key, Some(value.to_owned())));
            let given = || value.clone().ok_or_else(|| format!("`{key}` needs a value: {key}=…"));
            match key {
                "type" => spec.kind = given()?,
                "program" => spec.program = Some(given()?),
                "source" | "src" => spec.source = Some(given()?),
                "target" | "destination" | "dst" => spec.target = given()?,
                "options" | "opt" | "o" => spec.options.push(given()?),
                "lowerdir" | "upperdir" | "workdir" => spec.options.push(format!("{key}={}", given()?)),
                "readonly" | "ro" => spec.readonly = value.as_deref().is_none_or(|v| v != "false" && v != "0"),
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

impl MountSpec {
    fn check(&self) -> Result<(), String> {
        if self.target.is_empty() {
            return Err("a mount needs target=DIRECTORY".into());
        }
        match self.kind.as_str() {
            "" => Err("a mount needs a type: type=fuse or type=bind".into()),
            "bind" if self.source.is_none() => Err("a bind mount needs source=PATH".into()),
            "fuse" if self.program.is_none() => {
                Err("type=fuse needs program=PROGRAM (or use type=fuse.PROGRAM)".into())
            }
            "overlay" if !self.options.iter().any(|option| option.starts_with("lowerdir=")) => {
                Err("type=overlay needs lowerdir=DIR[:DIR…]".into())
            }
            "bind" | "fuse" | "overlay" => Ok(()),
            kind if kind.strip_prefix("fuse.").is_some_and(|name| !name.is_empty()) => Ok(()),
            other => Err(format!(
                "type `{other}` is not known; it is fuse, fuse.PROGRAM, overlay or bind"
            )),
        }
    }

    /// The first lower directory of an overlay.
    pub fn first_layer(&self) -> Option<&str> {
        let layers = self
            .options
            .iter()
            .find_map(|option| option.strip_prefix("lowerdir="))?;
        layers.split(':').next()
    }

    /// As words that [`MountSpec::from_str`] reads again.
    pub fn to_words(&self) -> String {
        let mut words = vec![format!("type={}", self.kind), format!("target={}", self.target)];
        words.extend(self.program.iter().map(|program| format!("program={program}")));
        words.extend(self.source.iter().map(|source| format!("source={source}")));
        words.extend(self.options.iter().map(|option| format!("options={option}")));
        words.extend(self.readonly.then(|| "readonly".to_owned()));
        words.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let spec: MountSpec = "type=fuse,program=squashfuse,src=image.sqsh,dst=/mnt,ro,opt=uid=0"
            .parse()
            .unwrap();
        assert_eq!(spec.program.as_deref(), Some("squashfuse"));
        assert!(spec.readonly);
        assert_eq!(spec.options, ["uid=0"]);
        assert_eq!(spec.to_words().parse::<MountSpec>().unwrap(), spec);
        let overlay: MountSpec = "type=overlay,lowerdir=a:b,upperdir=c,workdir=d,target=/"
            .parse()
            .unwrap();
        assert_eq!(overlay.options, ["lowerdir=a:b", "upperdir=c", "workdir=d"]);
        assert_eq!(overlay.first_layer(), Some("a"));
        assert_eq!(overlay.to_words().parse::<MountSpec>().unwrap(), overlay);
    }

    #[test]
    fn says_what_is_missing() {
        let error = |text: &str| text.parse::<MountSpec>().unwrap_err();
        assert!(error("type=fuse,target=/m").contains("program="));
        assert!(error("type=bind,target=/m").contains("source="));
        assert!(error("type=overlay,target=/m").contains("lowerdir="));
        assert!(error("target=/m").contains("type="));
        assert!(error("type=nfs,target=/m").contains("`nfs`"));
        assert!(error("type=fuse.x,target").contains("needs a value"));
        assert!(error("type=fuse.x,target=/m,colour=red").contains("`colour`"));
    }
}
