def test_x(judged_site): print(judged_site)
