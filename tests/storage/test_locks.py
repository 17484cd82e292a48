def test_x(tmp_path):
    from storage import lock

    lock(tmp_path).close()
