//! Paths of files in settings.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::SettingsMistake;

/// The path of a file, which must be absolute.
pub fn absolute_path(pointer: &str, text: &str, mistakes: &mut Vec<SettingsMistake>) -> PathBuf {
    let path = Path::new(text);
    if !path.is_absolute() {
        let message = format!("`{text}` is no absolute path");
        let hint =
            "write it like `/etc/coterie/shop.crt`; only in a manifest may it be relative, to its folder";
        mistakes.push(SettingsMistake::new(pointer, message).hint(hint));
    }
    path.to_owned()
}

/// Makes a path in settings absolute that is relative to a folder. Whatever is no path stays.
pub fn resolve_path(value: &mut Value, folder: &Path) {
    if let Value::String(path) = value
        && !path.is_empty()
        && let Some(absolute) = folder.join(&*path).to_str()
    {
        *path = absolute.to_owned();
    }
}
