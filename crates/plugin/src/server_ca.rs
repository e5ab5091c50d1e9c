//! The file of the CAs that servers' certificates must be signed by: for `ctl validate`, which reads it before the mesh does.

use std::path::Path;

use crate::SettingsMistake;

/// What would not work with the CA of servers at this JSON pointer; `check` reads the file, as [`mesh::check_ca`] does.
pub fn server_ca_warning(
    pointer: &str,
    ca: Option<&str>,
    check: &impl Fn(&Path) -> Result<(), String>,
) -> Option<SettingsMistake> {
    let why = check(Path::new(ca?)).err()?;
    let hint = "until it can be used, no connection to the `https://` addresses is opened";
    Some(SettingsMistake::new(pointer, why).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_of_servers_that_cannot_be_used_is_named_with_its_place() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/testdata");
        let found = |file: Option<&str>| {
            let path = file.map(|file| folder.join(file).display().to_string());
            server_ca_warning("/x/ca", path.as_deref(), &mesh::check_ca)
        };
        assert!(found(None).is_none() && found(Some("ca.crt")).is_none());
        for (file, why) in
            [("gone.crt", "No such file"), ("shop.key", "no certificate"), ("", "can't be read")]
        {
            let mistake = found(Some(file)).expect("it can't be used");
            assert_eq!(mistake.pointer, "/x/ca");
            assert!(mistake.message.contains(why) && mistake.hint.is_some(), "{mistake:?}");
        }
    }
}
