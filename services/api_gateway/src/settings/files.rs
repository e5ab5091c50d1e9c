//! Makes the paths of files in settings absolute. Pure.

use std::path::Path;

use serde_json::Value;

use super::access_log::STDOUT;

/// Makes the paths in settings absolute that are relative to a folder. Whatever is no path stays.
pub(crate) fn resolve_files(settings: &mut Value, folder: &Path) {
    let certificates = settings
        .get_mut("listeners")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(|listener| listener.get_mut("tls")?.get_mut("certificates")?.as_array_mut())
        .flatten();
    for certificate in certificates {
        for key in ["cert", "key"] {
            if let Some(path) = certificate.get_mut(key) {
                resolve(path, folder);
            }
        }
    }
    let log = settings.get_mut("access_log").and_then(|log| log.get_mut("to"));
    if let Some(path) = log.filter(|to| *to != STDOUT) {
        resolve(path, folder);
    }
}

fn resolve(value: &mut Value, folder: &Path) {
    if let Value::String(path) = value
        && !path.is_empty()
        && let Some(absolute) = folder.join(&*path).to_str()
    {
        *path = absolute.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_files_become_absolute_and_nothing_else_changes() {
        let mut settings = json!({
            "listen": "a",
            "listeners": [
                {"name": "a"}, 7,
                {"tls": {"certificates": [{"cert": "tls/a.crt", "key": "/k"}, {"cert": 7, "key": ""}, "x"]}},
                {"tls": {"certificates": {"cert": "x"}}},
            ],
            "access_log": {"to": "logs/access"},
        });
        resolve_files(&mut settings, Path::new("/m"));
        assert_eq!(
            settings,
            json!({
                "listen": "a",
                "listeners": [
                    {"name": "a"}, 7,
                    {"tls": {"certificates": [{"cert": "/m/tls/a.crt", "key": "/k"}, {"cert": 7, "key": ""}, "x"]}},
                    {"tls": {"certificates": {"cert": "x"}}},
                ],
                "access_log": {"to": "/m/logs/access"},
            })
        );
        for same in
            [json!(null), json!([]), json!({"access_log": {"to": "stdout"}}), json!({"access_log": 7})]
        {
            let mut settings = same.clone();
            resolve_files(&mut settings, Path::new("/m"));
            assert_eq!(settings, same);
        }
    }
}
