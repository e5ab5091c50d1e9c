//! What one durable write costs on this disk, whoever asks for it.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use tokio::time::Instant;

use crate::stats::millis;

const WRITES: usize = 50;
const BYTES: [u8; 4096] = [b'x'; 4096];

/// A page written over in place and synced, and a new file made durable by its name: the least that a log that is one
/// file needs, and the least that an object in a folder needs. In milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    pub(crate) page: Vec<f64>,
    pub(crate) object: Vec<f64>,
}

impl Floor {
    /// Looks again: a disk that others use too is not the same all the time.
    pub(crate) async fn look(&mut self, folder: &Path) -> anyhow::Result<()> {
        let folder = folder.join("floor");
        let looking = tokio::task::spawn_blocking(move || {
            std::fs::create_dir(&folder)?;
            let (page, object) = (pages(&folder)?, objects(&folder)?);
            std::fs::remove_dir_all(&folder)?;
            Ok::<_, std::io::Error>((page, object))
        });
        let (page, object) = looking.await??;
        self.page.extend(page);
        self.object.extend(object);
        Ok(())
    }
}

fn pages(folder: &Path) -> std::io::Result<Vec<f64>> {
    let mut file = std::fs::File::create(folder.join("page"))?;
    file.write_all(&BYTES)?;
    file.sync_all()?;
    let mut took = Vec::new();
    for _ in 0..WRITES {
        let began = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&BYTES)?;
        file.sync_data()?;
        took.push(millis(began.elapsed()));
    }
    Ok(took)
}

fn objects(folder: &Path) -> std::io::Result<Vec<f64>> {
    let mut took = Vec::new();
    for number in 0..WRITES {
        let began = Instant::now();
        let staged = folder.join("staged");
        let mut file = std::fs::File::create_new(&staged)?;
        file.write_all(&BYTES)?;
        file.sync_all()?;
        std::fs::hard_link(&staged, folder.join(number.to_string()))?;
        std::fs::remove_file(&staged)?;
        std::fs::File::open(folder)?.sync_all()?;
        took.push(millis(began.elapsed()));
    }
    Ok(took)
}
