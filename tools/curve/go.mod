module immuaudit/tools/curve

go 1.26.0
