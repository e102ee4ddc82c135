//! Scripts by their content: two versions run side by side while a deploy is under way, nothing is installed, and
//! nobody needs the right to.

use std::sync::LazyLock;

use redis::Cmd;

/// A Lua script. One `static` each.
pub(super) struct Script {
    text: &'static str,
    sha: LazyLock<String>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("sha", &*self.sha)
            .finish_non_exhaustive()
    }
}

/// A script of this folder, by its file's name: `static OPEN: Script = script!("open");`
macro_rules! script {
    ($name:literal) => {
        $crate::backplane::redis::script::Script::new(
            include_str!(concat!("lua/", $name, ".lua")),
            ::std::sync::LazyLock::new(|| {
                $crate::backplane::redis::script::digest(include_str!(concat!("lua/", $name, ".lua")))
            }),
        )
    };
}
pub(super) use script;

impl Script {
    /// Use `script!`.
    pub(super) const fn new(text: &'static str, sha: LazyLock<String>) -> Self {
        Self { text, sha }
    }

    /// The call, by digest or (after `NOSCRIPT`) by text.
    pub(super) fn command<K: AsRef<[u8]>, A: AsRef<[u8]>>(&self, by_text: bool, keys: &[K], args: &[A]) -> Cmd {
        let size = keys.iter().map(|key| key.as_ref().len()).sum::<usize>()
            + args.iter().map(|arg| arg.as_ref().len()).sum::<usize>();
        let mut cmd = Cmd::with_capacity(3 + keys.len() + args.len(), size + self.sha.len() + 16);
        if by_text {
            cmd.arg("EVAL").arg(self.text);
        } else {
            cmd.arg("EVALSHA").arg(self.sha.as_str());
        }
        cmd.arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        for arg in args {
            cmd.arg(arg.as_ref());
        }
        cmd
    }
}

/// SHA-1 as `SCRIPT LOAD` has it.
pub(super) fn digest(text: &str) -> String {
    redis::Script::new(text).get_hash().to_owned()
}
