//! The mount options of overlayfs.

#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The topmost first.
    pub lower: Vec<String>,
    /// The upper and the work directory.
    pub upper: Option<(String, String)>,
    pub volatile: bool,
}

/// `OVL_MAX_STACK`
const MAX_LOWER: usize = 500;

impl Options {
    /// An error says what is wrong, in one line.
    pub fn parse(data: &[u8]) -> Result<Options, String> {
        let text = std::str::from_utf8(data).map_err(|_| "the options are no UTF-8")?;
        let (mut lower, mut upper, mut work, mut volatile) = (Vec::new(), None, None, false);
        let (mut userxattr, mut redirects) = (false, false);
        for word in split(text, ',').iter().filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match (key, value) {
                ("lowerdir", paths) => lower = split(paths, ':'),
                ("upperdir", path) => upper = Some(unescape(path)),
                ("workdir", path) => work = Some(unescape(path)),
                ("volatile", "") | ("fsync", "volatile") => volatile = true,
                ("userxattr", "") => userxattr = true,
                ("redirect_dir", "off") => redirects = true,
                // Always so here.
                ("redirect_dir", "nofollow")
                | ("index" | "metacopy" | "nfs_export" | "verity", "off")
                | ("uuid", "off" | "null" | "auto")
                | ("fsync", "auto" | "strict") => {}
                ("xino", "on" | "off" | "auto") => {}
                ("redirect_dir" | "index" | "metacopy" | "nfs_export" | "verity" | "uuid", _) => {
                    return Err(format!("overlays are without {key}, so {word} cannot be had"));
                }
                _ => return Err(format!("overlay does not know {word}")),
            }
        }
        if userxattr && redirects {
            return Err("redirect_dir=off follows redirects that are there, which userxattr excludes".into());
        }
        let lower: Vec<String> = lower.iter().map(|path| unescape(path)).collect();
        if lower.is_empty() || lower.iter().any(String::is_empty) {
            return Err("lowerdir names no directory, or an empty one".into());
        }
        if lower.len() > MAX_LOWER {
            return Err(format!("there are more than {MAX_LOWER} lower directories"));
        }
        let upper = match (upper, work) {
            (Some(upper), Some(work)) => Some((upper, work)),
            (Some(_), None) => return Err("upperdir needs a workdir".into()),
            (None, _) if lower.len() > 1 => None,
            (None, _) => return Err("without upperdir there must be several lower directories".into()),
        };
        Ok(Options { lower, upper, volatile })
    }

    /// As `/proc/mounts` has it.
    pub fn show(&self) -> String {
        let lower: Vec<String> = self.lower.iter().map(|path| escape(path)).collect();
        let mut text = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = &self.upper {
            text.push_str(&format!(",upperdir={},workdir={}", escape(upper), escape(work)));
        }
        if self.volatile {
            text.push_str(",volatile");
        }
        text.push_str(",redirect_dir=nofollow,userxattr");
        text
    }
}

/// Splits at a separator that no backslash precedes.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if matches!(c, ':' | ',' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_kernel() {
        let options = Options::parse(b"lowerdir=a\\:b:/c,upperdir=u,workdir=w\\,x,userxattr,xino=off").unwrap();
        assert_eq!(options.lower, ["a:b", "/c"]);
        assert_eq!(options.upper, Some(("u".into(), "w,x".into())));
        assert_eq!(
            options.show(),
            "lowerdir=a\\:b:/c,upperdir=u,workdir=w\\,x,redirect_dir=nofollow,userxattr"
        );
        assert_eq!(Options::parse(b"lowerdir=a:b").unwrap().upper, None);
        let refused = Options::parse(b"lowerdir=a:b,index=on").unwrap_err();
        assert_eq!(refused, "overlays are without index, so index=on cannot be had");
        for bad in [
            "",
            "lowerdir=",
            "lowerdir=a::b",
            "lowerdir=a,upperdir=u",
            "lowerdir=a:b,colour=red",
            "lowerdir=a:b,index=on",
            "lowerdir=a:b,redirect_dir=on",
            "lowerdir=a:b,metacopy=on",
            "lowerdir=a:b,redirect_dir=off,userxattr",
        ] {
            assert!(Options::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
