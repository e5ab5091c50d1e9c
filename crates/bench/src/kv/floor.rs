//! Measures the cost of one durable write on this disk, independent of any store.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use tokio::time::Instant;

use crate::stats::millis;

const WRITES: usize = 50;
const BYTES: [u8; 4096] = [b'x'; 4096];

/// The lower bounds in milliseconds: `page` overwrites a page in place and syncs it, the least that a log in one file
/// needs; `object` makes a new file durable under its name, the least that an object in a folder needs.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    pub(crate) page: Vec<f64>,
    pub(crate) object: Vec<f64>,
}

impl Floor {
    /// Takes more samples: a shared disk is not equally fast all the time.
    pub(crate) async fn measure(&mut self, folder: &Path) -> anyhow::Result<()> {
        let folder = folder.join("floor");
        let measuring = tokio::task::spawn_blocking(move || {
            std::fs::create_dir(&folder)?;
            let (page, object) = (pages(&folder)?, objects(&folder)?);
            std::fs::remove_dir_all(&folder)?;
            Ok::<_, std::io::Error>((page, object))
        });
        let (page, object) = measuring.await??;
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
