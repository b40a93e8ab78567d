module github.com/eastwest-lab/eastwest/scripts/components/pause

go 1.26.0
