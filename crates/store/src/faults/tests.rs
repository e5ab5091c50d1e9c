use object_store::memory::InMemory;

use super::*;

#[tokio::test]
async fn an_operation_is_held_on_either_side_of_the_store() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let faults = Faults::new(Arc::clone(&inner));
    let path = Path::from("x");
    for (when, is_there) in [(When::Before, false), (When::After, true)] {
        let mut pause = faults.pause_next(Op::Put, when);
        let test = async {
            pause.reached().await;
            assert_eq!(inner.head(&path).await.is_ok(), is_there);
            pause.resume();
        };
        let (put, ()) = tokio::join!(faults.put(&path, "x".into()), test);
        put.unwrap();
        inner.delete(&path).await.unwrap();
    }
}

#[tokio::test]
async fn hanging_operations_resume_when_the_store_works_again() {
    let faults = Faults::new(Arc::new(InMemory::new()));
    faults.set(Mode::Hang);
    let path = Path::from("x");
    let (put, ()) = tokio::join!(faults.put(&path, "x".into()), async {
        tokio::task::yield_now().await;
        faults.set(Mode::Work);
    });
    put.unwrap();
}

#[tokio::test]
async fn reads_succeed_while_writes_fail() {
    let faults = Faults::new(Arc::new(InMemory::new()));
    faults.put(&Path::from("x"), "x".into()).await.unwrap();
    faults.set(Mode::FailWrites(io::ErrorKind::StorageFull));
    faults.put(&Path::from("x"), "y".into()).await.unwrap_err();
    faults.delete(&Path::from("x")).await.unwrap_err();
    assert_eq!(faults.get(&Path::from("x")).await.unwrap().bytes().await.unwrap(), "x");
    assert_eq!(faults.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
}
